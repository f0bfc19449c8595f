"""What a connector author imports: all of it, and nothing else of tieline."""

from tieline.api.commands import Following, Program, Topics, ended_by_signals, instant
from tieline.api.config import CommaList, Config, Secret, setting
from tieline.api.connector import Connector, ConnectorContext, SinkConnector, SourceConnector
from tieline.api.converter import Converter, Datum, Encoded, SchemaStore
from tieline.api.errors import (
    AlreadyOwned,
    ConfigError,
    DataError,
    Denied,
    Fatal,
    Fenced,
    Mistake,
    PluginError,
    RefuseToStart,
    Retriable,
    TielineError,
)
from tieline.api.exact_json import parse_json
from tieline.api.partitioner import partition_of
from tieline.api.record import (
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
    "DIGEST_HEADER",
    "ID_HEADER",
    "AlreadyOwned",
    "AnyRecord",
    "Changelog",
    "CommaList",
    "Config",
    "ConfigError",
    "Connector",
    "ConnectorContext",
    "Converter",
    "DataError",
    "Datum",
    "Denied",
    "Encoded",
    "Fatal",
    "Fenced",
    "Following",
    "Headers",
    "Mistake",
    "PluginError",
    "Position",
    "Program",
    "RecordMetadata",
    "RefuseToStart",
    "Retriable",
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
    "TielineError",
    "TopicPartition",
    "Topics",
    "TransactionContext",
    "Transform",
    "Unreadable",
    "ended_by_signals",
    "header",
    "identity",
    "instant",
    "parse_json",
    "partition_of",
    "setting",
]
