"""What the present configuration of a connector makes of a letter: converters and transforms, no ``put``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tieline.api import (
    DataError,
    Encoded,
    FatalError,
    RetriableError,
    Schema,
    SchemaStore,
    SinkRecord,
    SourceRecord,
)
from tieline.broker.port import Broker
from tieline.broker.records import ConsumedRecord, ProducerRecord
from tieline.config.planned import ConnectorPlan, ConverterPlan, SinkPlan
from tieline.dead_letters.letter import DeadLetter
from tieline.dead_letters.source_record import source_record
from tieline.registry.client import RemoteSchemaStore
from tieline.registry.schema_topic import TopicSchemaStore
from tieline.runtime.errors.failed_records import Failure, cause_of
from tieline.runtime.errors.retry_state import StageError
from tieline.runtime.sink.conversion import SinkConversion
from tieline.runtime.source.conversion import SourceConversion
from tieline.runtime.task.transform_chain import TransformChain

_NO_ID = 0


class SinkResult(NamedTuple):
    """What ``put`` would get: a record, nothing if it is filtered, or the failure."""

    record: SinkRecord | None = None
    failure: Failure | None = None


class SourceResult(NamedTuple):
    """What the broker would get: a record, nothing if it is filtered, or the failure.

    ``data``: the record behind the transforms, before it is converted.
    """

    record: ProducerRecord | None = None
    failure: Failure | None = None
    data: SourceRecord | None = None


class ConnectorConversion:
    """The converters and transforms of one connector. Used by one thread.

    ``dry``: no schema is registered; one that is not known yet counts as accepted.
    """

    def __init__(self, plan: ConnectorPlan, broker: Broker, *, dry: bool = False) -> None:
        self.plan = plan
        self._broker = broker
        self._stores: list[RemoteSchemaStore] = []
        self._dry = dry
        self._key = self._converter(plan.key, is_key=True)
        self._value = self._converter(plan.value, is_key=False)
        transforms = [planned.type(planned.config) for planned in plan.transforms]
        self._transforms = TransformChain(transforms, tolerant=True)
        self._sink: SinkConversion | None = None
        self._source: SourceConversion | None = None
        if isinstance(plan, SinkPlan):
            self._sink = SinkConversion(broker, self._transforms, self._key, self._value)
        else:
            self._source = SourceConversion(self._transforms, self._key, self._value)

    def read_value(self, letter: DeadLetter) -> Any:
        """Return a consumed record's value as the sink's converter reads it. Raises ``ValueError``."""
        return self._read(self._value, letter.topic, letter.value)

    def read_key(self, letter: DeadLetter) -> Any:
        """Return a consumed record's key as the sink's converter reads it. Raises ``ValueError``."""
        return self._read(self._key, letter.topic, letter.key)

    def to_sink(self, record: ConsumedRecord) -> SinkResult:
        """Convert and transform a consumed record. Raises ``RetriableError`` during an outage."""
        assert self._sink is not None
        try:
            converted = self._sink.convert([record])
        except StageError as error:
            return SinkResult(failure=_failure(error))
        if converted.failures:
            return SinkResult(failure=converted.failures[0])
        return SinkResult(converted.records[0] if converted.records else None)

    def to_broker(self, record: SourceRecord) -> SourceResult:
        """Transform and convert a source's record. Raises ``RetriableError`` during an outage."""
        assert self._source is not None
        try:
            data: SourceRecord | None = None
            if self._dry:
                left, _, _ = self._transforms.apply([record])
                data = left[0] if left else None
            converted = self._source.convert([record])
        except StageError as error:
            failure = _failure(error)
            if self._dry:
                return SourceResult(failure=failure)
            raise FatalError(f"{self.plan.name}: {error}") from error  # no cause that lies in the record
        if converted.failures:
            return SourceResult(failure=converted.failures[0], data=data)
        return SourceResult(converted.records[0], data=data)

    def close(self) -> None:
        """Stop the transforms and close the clients of registries."""
        self._transforms.stop()
        for store in self._stores:
            store.close()

    def _converter(self, plan: ConverterPlan, *, is_key: bool) -> Any:
        store: SchemaStore
        if plan.registry:
            remote = RemoteSchemaStore(plan.registry)
            self._stores.append(remote)
            store = remote
        else:
            store = TopicSchemaStore(self._broker)
        return plan.type(plan.config, is_key=is_key, schemas=_ReadOnly(store) if self._dry else store)

    def _read(self, converter: Any, topic: str, data: bytes | None) -> Any:
        try:
            return converter.deserialize([Encoded(topic, data)])[0].data
        except DataError as error:
            raise ValueError(str(cause_of(error))) from None
        except RetriableError:
            raise
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything for damaged bytes
            raise ValueError(f"{type(error).__name__}: {error}") from None


class Conversions:
    """The conversions of the configured connectors, each built when it is first needed."""

    def __init__(self, plans: Mapping[str, ConnectorPlan], broker: Broker, *, dry: bool = False) -> None:
        self.plans = plans
        self._broker = broker
        self._dry = dry
        self._built: dict[str, ConnectorConversion] = {}

    def of(self, connector: str) -> ConnectorConversion | None:
        """Return the conversion of a connector; ``None`` if it is not configured."""
        plan = self.plans.get(connector)
        if plan is None:
            return None
        if connector not in self._built:
            self._built[connector] = ConnectorConversion(plan, self._broker, dry=self._dry)
        return self._built[connector]

    def close(self) -> None:
        """Close what was built."""
        for conversion in self._built.values():
            conversion.close()


def is_of_source(letter: DeadLetter) -> bool:
    """Return whether a letter is about a record of a source. A sink's letter may have a form, too."""
    return letter.form is not None and letter.partition is None


def as_source_record(letter: DeadLetter) -> SourceRecord:
    """Return the record of a source's letter. Raises ``ValueError`` with the reason."""
    if letter.form is not None and letter.form.value == "spool":
        raise ValueError("it is a row of the spool that the disk has changed, so its content is unknown")
    return source_record(letter)


def _failure(error: StageError) -> Failure:
    if isinstance(error.error, RetriableError):
        raise error.error
    return Failure(error.stage, error.error)


class _ReadOnly:
    """A ``SchemaStore`` that registers nothing."""

    def __init__(self, store: SchemaStore) -> None:
        self._store = store

    def register(self, subject: str, schema: Schema) -> int:
        """Return an id that no schema has."""
        return _NO_ID

    def schema(self, schema_id: int) -> Schema | None:
        """Return the schema of an id; see ``SchemaStore.schema``."""
        return self._store.schema(schema_id)
