"""The interface for authors of connectors, who import nothing else of tieline."""

from tieline.api.config import CommaList, Config, Secret, setting
from tieline.api.connector import Connector, ConnectorContext, SinkConnector, SourceConnector
from tieline.api.converter import Converter, Datum, Encoded, SchemaStore
from tieline.api.errors import (
    AccessDeniedError,
    ConfigError,
    ConfigProblem,
    DataDirInUseError,
    DataError,
    FatalError,
    FencedError,
    PluginError,
    RecordError,
    RetriableError,
    StartupError,
    TielineError,
)
from tieline.api.exact_json import parse_json
from tieline.api.partitioner import partition_of
from tieline.api.record import (
    BACKFILL_HEADER,
    DIGEST_HEADER,
    ID_HEADER,
    AnyRecord,
    Headers,
    Position,
    RecordMetadata,
    SinkRecord,
    SourceRecord,
    TopicPartition,
    Unreadable,
    header,
    identity,
)
from tieline.api.schema import Schema
from tieline.api.sink import Changelog, SinkContext, SinkTask
from tieline.api.source import SourceContext, SourceTask, TransactionContext
from tieline.api.transform import Transform

__all__ = [
    "BACKFILL_HEADER",
    "DIGEST_HEADER",
    "ID_HEADER",
    "AccessDeniedError",
    "AnyRecord",
    "Changelog",
    "CommaList",
    "Config",
    "ConfigError",
    "ConfigProblem",
    "Connector",
    "ConnectorContext",
    "Converter",
    "DataDirInUseError",
    "DataError",
    "Datum",
    "Encoded",
    "FatalError",
    "FencedError",
    "Headers",
    "PluginError",
    "Position",
    "RecordError",
    "RecordMetadata",
    "RetriableError",
    "Schema",
    "SchemaStore",
    "Secret",
    "SinkConnector",
    "SinkContext",
    "SinkRecord",
    "SinkTask",
    "SourceConnector",
    "SourceContext",
    "SourceRecord",
    "SourceTask",
    "StartupError",
    "TielineError",
    "TopicPartition",
    "TransactionContext",
    "Transform",
    "Unreadable",
    "header",
    "identity",
    "parse_json",
    "partition_of",
    "setting",
]
