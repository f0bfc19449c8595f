"""From a plan to running parts: what is made for each task."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tieline.api import SchemaStore, SinkTask, SourceTask
from tieline.broker.local.ownership import tighten_folder
from tieline.broker.port import Broker
from tieline.config.plan import ConnectorPlan, ConverterPlan, Plan
from tieline.config.settings import SinkSettings, SourceSettings, Timing
from tieline.converters.avro import AvroConverter
from tieline.registry.client import RemoteSchemaStore
from tieline.registry.schema_topic import SchemaTopic, TopicSchemaStore
from tieline.runtime.sink.changelog import TaskChangelogs
from tieline.runtime.sink.claims import Claims
from tieline.runtime.sink.conversion import SinkConversion
from tieline.runtime.sink.task import SinkInputs, WorkerSinkTask
from tieline.runtime.source.conversion import SourceConversion
from tieline.runtime.source.sender import Acknowledged, ProducerOptions, Sender
from tieline.runtime.source.task import WorkerSourceTask
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.transform_chain import TransformChain


def open_broker(plan: Plan) -> Broker:
    """Open the broker of a worker, in a data folder that is private. Raises ``DataDirInUseError``."""
    tighten_folder(plan.worker.data_dir)  # on Kafka only the spools in it are opened
    return plan.backend.open()


class TaskFactory:
    """Makes the parts of tasks; schema stores are shared by all tasks of a worker."""

    def __init__(self, broker: Broker, timing: Timing, spools: Path) -> None:
        self._broker = broker
        self.timing = timing
        self._spools = spools
        self._lock = threading.Lock()
        self._stores: dict[str, SchemaStore] = {}
        self.schema_topic = SchemaTopic(broker)
        """The broker's own schemas, for the converters and for a registry that serves them."""

    def source(
        self,
        plan: ConnectorPlan,
        task_type: type[SourceTask[Any]],
        own: Mapping[str, str],
        environment: TaskEnvironment,
    ) -> WorkerSourceTask:
        """A task of a source whose records can be asked for again."""
        settings = _source(plan)

        def make_sender(acknowledged: Acknowledged | None) -> Sender:
            return Sender(
                environment,
                self._conversion(plan, environment),
                self._options(plan, environment),
                acknowledged,
            )

        return WorkerSourceTask(
            environment,
            lambda context: task_type(context, type(plan.config).parse(own)),
            make_sender,
            lambda: self._broker.source_offsets(plan.name, self.timing.call_timeout),
            self.timing._replace(max_records=settings.max_poll_records),
        )

    def spool_sender(self, plan: ConnectorPlan, environment: TaskEnvironment, spool: Spool) -> Sender:
        """What a pump sends with."""
        return Sender(
            environment, self._conversion(plan, environment), self._options(plan, environment, spool)
        )

    def sink(
        self,
        plan: ConnectorPlan,
        task_type: type[SinkTask[Any]],
        own: Mapping[str, str],
        environment: TaskEnvironment,
    ) -> WorkerSinkTask:
        """A task of a sink."""
        conversion = SinkConversion(
            self._broker, _transforms(plan), *self._converters(plan), environment.counters.add
        )
        overrides = dict(plan.overrides)
        if "group.instance.id" in overrides and environment.task:  # each task is a member: one name, one task
            overrides["group.instance.id"] += f"-{environment.task}"
        inputs = SinkInputs(
            lambda: self._broker.consumer(f"connect-{plan.name}", environment.id, overrides),
            conversion,
            TaskChangelogs(plan.name, self._schemas(plan.value), self.timing.call_timeout),
            Claims(self._broker, self.timing.call_timeout),
        )
        return WorkerSinkTask(
            environment,
            lambda context: task_type(context, type(plan.config).parse(own)),
            inputs,
            self.timing._replace(max_records=plan.settings.max_poll_records),
        )

    def open_spool(self, path: Path, plan: ConnectorPlan, environment: TaskEnvironment) -> Spool:
        """Open a spool's file. Raises ``AlreadyOwned``, ``RefuseToStart``."""
        settings = _source(plan)
        limits = Limits(
            settings.spool_max_bytes,
            settings.spool_full_policy == "drop_oldest",
            settings.quarantine_max_bytes,
        )
        as_avro = plan.value.type is AvroConverter and not plan.transforms  # nothing looks into the values
        return Spool(path, limits, environment.counters, environment.clock, as_avro=as_avro)

    def spool_path(self, environment: TaskEnvironment) -> Path:
        """Where a task's spool is."""
        return self._spools / f"{environment.id}.db"

    def spools_found(self) -> list[Path]:
        """The files of all spools on this disk."""
        return sorted(self._spools.glob("*.db"))

    def close(self) -> None:
        """At the end of the worker: let schema stores elsewhere go."""
        for store in self._stores.values():
            if isinstance(store, RemoteSchemaStore):
                store.close()

    def _options(
        self, plan: ConnectorPlan, environment: TaskEnvironment, spool: Spool | None = None
    ) -> ProducerOptions:
        settings = _source(plan)
        return ProducerOptions(
            self._broker,
            environment.id,
            plan.overrides,
            settings.producer_in_flight_bytes,
            settings.topic_creation_default_partitions,
            settings.topic_creation_default_replication_factor,
            spool,
        )

    def _conversion(self, plan: ConnectorPlan, environment: TaskEnvironment) -> SourceConversion:
        return SourceConversion(_transforms(plan), *self._converters(plan), environment.clock)

    def _converters(self, plan: ConnectorPlan) -> tuple[Any, Any]:
        made = []
        for is_key, converter_plan in ((True, plan.key), (False, plan.value)):
            schemas = self._schemas(converter_plan)
            made.append(converter_plan.type(converter_plan.config, is_key=is_key, schemas=schemas))
        return made[0], made[1]

    def _schemas(self, plan: ConverterPlan) -> SchemaStore:
        key = json.dumps(plan.registry, sort_keys=True)
        with self._lock:
            if key not in self._stores:
                self._stores[key] = (
                    RemoteSchemaStore(plan.registry)
                    if plan.registry
                    else TopicSchemaStore(self._broker, self.schema_topic)
                )
            return self._stores[key]


def _source(plan: ConnectorPlan) -> SourceSettings:
    assert isinstance(plan.settings, SourceSettings)
    return plan.settings


def sink_settings(plan: ConnectorPlan) -> SinkSettings:
    """The settings of a sink's plan."""
    assert isinstance(plan.settings, SinkSettings)
    return plan.settings


def _transforms(plan: ConnectorPlan) -> TransformChain:
    return TransformChain([planned.type(planned.config) for planned in plan.transforms])
