"""From a plan to running parts: what is built for each task."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tieline.api import SchemaStore, SinkTask, SourceTask
from tieline.broker.internal import replay_topic
from tieline.broker.local.ownership import tighten_folder
from tieline.broker.port import Broker
from tieline.config.plan import ConnectorPlan, ConverterPlan, Plan, SinkPlan, SourcePlan
from tieline.config.settings import Timing
from tieline.converters.avro import AvroConverter
from tieline.registry.client import RemoteSchemaStore
from tieline.registry.schema_topic import SchemaTopic, TopicSchemaStore
from tieline.runtime.errors.dead_letters import DeadLetters
from tieline.runtime.sink.changelog import TaskChangelogs
from tieline.runtime.sink.claims import Claims
from tieline.runtime.sink.context import SinkInputs
from tieline.runtime.sink.conversion import SinkConversion
from tieline.runtime.sink.letters import SinkLetters
from tieline.runtime.sink.partition_counts import PartitionCounts
from tieline.runtime.sink.task import WorkerSinkTask
from tieline.runtime.source.conversion import SourceConversion
from tieline.runtime.source.pump import Pump, SpoolInput
from tieline.runtime.source.receiver import Receiver
from tieline.runtime.source.sender import Acknowledged, ProducerOptions, Sender
from tieline.runtime.source.task import SavedOffsets, WorkerSourceTask
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.transform_chain import TransformChain

TaskSettings = Mapping[str, str]
"""The flat settings of one task, from ``Connector.task_configs``."""


def open_broker(plan: Plan) -> Broker:
    """Open the broker of a worker, in a data folder that is private. Raises ``DataDirInUseError``."""
    tighten_folder(plan.worker.data_dir)  # with Kafka, only the spools in it are opened
    return plan.backend.open()


class TaskFactory:
    """Builds runners and their parts, as often as they are needed; all tasks share the schema stores.

    Each call returns new objects. Any thread may call it.
    """

    def __init__(self, broker: Broker, timing: Timing, data_dir: Path) -> None:
        self._broker = broker
        self._timing = timing
        self._spools = data_dir / "spools"
        self.data_dir = data_dir
        """The worker's folder, for the files of its tasks."""
        self._lock = threading.Lock()
        self._stores: dict[str, SchemaStore] = {}
        self.schema_topic = SchemaTopic(broker)
        """The broker's own schemas, for the converters and for a registry that serves them."""

    def source(
        self,
        plan: SourcePlan,
        task_type: type[SourceTask[Any]],
        settings: TaskSettings,
        environment: TaskEnvironment,
    ) -> WorkerSourceTask:
        """Build the runner of a source whose records can be read again."""

        def make_sender(acknowledged: Acknowledged | None) -> Sender:
            return self._sender(plan, environment, acknowledged=acknowledged)

        config = type(plan.config).parse(settings)
        return WorkerSourceTask(
            environment,
            lambda context: task_type(context, config),
            make_sender,
            SavedOffsets.of(self._broker, plan.name, self._timing.call_timeout),
            self._timing._replace(max_records=plan.settings.max_poll_records),
        )

    def receiver(
        self,
        plan: SourcePlan,
        task_type: type[SourceTask[Any]],
        settings: TaskSettings,
        environment: TaskEnvironment,
        spool: Spool,
    ) -> Receiver:
        """Build the receiver of a source with a spool."""
        config = type(plan.config).parse(settings)
        return Receiver(environment, lambda context: task_type(context, config), spool, self._timing)

    def pump(
        self, plan: SourcePlan, environment: TaskEnvironment, spool: Spool, spool_input: SpoolInput
    ) -> Pump:
        """Build the pump of a spool."""
        return Pump(
            environment, spool, lambda: self._sender(plan, environment, spool), self._timing, spool_input
        )

    def sink(
        self,
        plan: SinkPlan,
        task_type: type[SinkTask[Any]],
        settings: TaskSettings,
        environment: TaskEnvironment,
    ) -> WorkerSinkTask:
        """Build the runner of a sink."""
        overrides = dict(plan.overrides)
        if "group.instance.id" in overrides and environment.task:  # each task is a member with its own name
            overrides["group.instance.id"] += f"-{environment.task}"
        timeout = self._timing.call_timeout
        inputs = SinkInputs(
            lambda: self._broker.consumer(
                f"connect-{plan.name}", environment.id, overrides, plan.producer_overrides
            ),
            SinkConversion(
                self._broker,
                _transforms(plan),
                *self._converters(plan),
                environment.counters.add,
                replay_topic(plan.name),
            ),
            TaskChangelogs(plan.name, self._schemas(plan.value), timeout),
            Claims(self._broker, timeout),
            PartitionCounts(self._broker),
            SinkLetters(self._dead_letters(plan, environment), avro=plan.value.type is AvroConverter),
        )
        config = type(plan.config).parse(settings)
        return WorkerSinkTask(
            environment,
            lambda context: task_type(context, config),
            inputs,
            plan.settings.reads,
            self._timing._replace(max_records=plan.settings.max_poll_records),
        )

    def open_spool(self, path: Path, plan: SourcePlan, environment: TaskEnvironment) -> Spool:
        """Open a spool's file. Raises ``DataDirInUseError``, ``StartupError``."""
        settings = plan.settings
        limits = Limits(
            settings.spool_max_bytes,
            settings.spool_full_policy == "drop_oldest",
            settings.quarantine_max_bytes,
        )
        as_avro = plan.value.type is AvroConverter and not plan.transforms  # nothing looks into the values
        return Spool(
            path,
            limits,
            environment.counters,
            environment.clock,
            as_avro=as_avro,
            dead_letters=settings.dead_letters is not None,
        )

    def spool_path(self, environment: TaskEnvironment) -> Path:
        """Return the path of a task's spool."""
        return self._spools / f"{environment.id}.db"

    def existing_spools(self) -> list[Path]:
        """Return the paths of all spools on this disk."""
        return sorted(self._spools.glob("*.db"))

    def close(self) -> None:
        """Close the clients of external schema registries, at the end of the worker."""
        for store in self._stores.values():
            if isinstance(store, RemoteSchemaStore):
                store.close()

    def _sender(
        self,
        plan: SourcePlan,
        environment: TaskEnvironment,
        spool: Spool | None = None,
        acknowledged: Acknowledged | None = None,
    ) -> Sender:
        settings = plan.settings
        options = ProducerOptions(
            self._broker,
            environment.id,
            plan.overrides,
            settings.producer_in_flight_bytes,
            settings.topic_creation_default_partitions,
            settings.topic_creation_default_replication_factor,
            spool,
        )
        conversion = SourceConversion(_transforms(plan), *self._converters(plan), environment.clock)
        return Sender(environment, conversion, options, acknowledged, self._dead_letters(plan, environment))

    def _dead_letters(self, plan: ConnectorPlan, environment: TaskEnvironment) -> DeadLetters | None:
        queue = plan.settings.dead_letters
        if queue is None:
            return None
        return DeadLetters(queue, self._broker, environment)

    def _converters(self, plan: ConnectorPlan) -> tuple[Any, Any]:
        key, value = (
            planned.type(planned.config, is_key=is_key, schemas=self._schemas(planned))
            for is_key, planned in ((True, plan.key), (False, plan.value))
        )
        return key, value

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


def _transforms(plan: ConnectorPlan) -> TransformChain:
    tolerant = plan.settings.dead_letters is not None
    return TransformChain([planned.type(planned.config) for planned in plan.transforms], tolerant=tolerant)
