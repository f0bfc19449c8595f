"""Nothing is added to or removed from the public contract by accident."""

from __future__ import annotations

import inspect

import tieline.api

PUBLIC = [
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


def test_the_public_names_are_exactly_these_in_this_order():
    assert tieline.api.__all__ == PUBLIC


def test_the_list_is_sorted_constants_then_classes_then_functions():
    def place(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert sorted(PUBLIC, key=place) == PUBLIC


def test_the_listed_names_are_exactly_the_importable_ones():
    importable = {
        name
        for name, value in vars(tieline.api).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert importable == set(PUBLIC)


def test_every_public_class_and_function_has_a_docstring():
    undocumented = [
        name
        for name in PUBLIC
        if (inspect.isclass(thing := getattr(tieline.api, name)) or inspect.isfunction(thing))
        and not inspect.getdoc(thing)
    ]
    assert undocumented == []
