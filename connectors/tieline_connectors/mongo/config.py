"""The settings of the sink, with the keys of Kafka Connect's MongoDB sink if they mean the same."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, model_validator

from tieline.api import CommaList, Config, Secret, setting
from tieline_connectors.mongo.client import Client, create_client, uri_options
from tieline_connectors.mongo.documents.layouts import LAYOUTS, LayoutOptions
from tieline_connectors.points.values import KINDS

_OVERRIDE = "topic.override."
_OVERRIDABLE = ("collection", "database", "layout")


class TopicOverride(NamedTuple):
    """``topic.override.<topic>.<name> = <value>``."""

    topic: str
    name: str
    value: str


class Destination(NamedTuple):
    """The database, collection and layout of a topic's records."""

    database: str
    collection: str
    layout: str


_IDENTITY = (
    "each record is inserted once, with its identity as _id, so that a redelivery changes nothing. Remove "
    "this setting; layout chooses the form of documents"
)
_ERRORS = (
    "a document that MongoDB refuses is handled as every record that fails. Remove this setting; "
    "errors.tolerance=all with errors.deadletterqueue.topic.name makes it a dead letter"
)
_RETRIES = "the sink waits until an outage ends. Remove this setting; errors.retry.timeout limits the wait"


_CONCERN = re.compile(r"[0-9]|[1-4][0-9]|50|[A-Za-z_]\S*")
_UNACKNOWLEDGED = "0 means no acknowledgement, so no write would be guaranteed; use 1"


def database_problem(name: str) -> str:
    """Return why a database cannot have this name; empty if it can."""
    if bad := sorted(set(name) & set('/\\. "$*<>:|?\0')):
        return f"a database's name cannot contain {bad[0]!r}"
    return "a database's name has 1 to 63 bytes" if not 0 < len(name.encode()) < 64 else ""


def collection_problem(name: str) -> str:
    """Return why a collection cannot have this name; empty if it can."""
    if not name.strip() or "$" in name or "\0" in name or ".." in name or name[0] == "." or name[-1] == ".":
        return "a collection's name cannot be blank, contain $ or .., or begin or end with a dot"
    return "names that begin with system. are reserved by MongoDB" if name.startswith("system.") else ""


def _unknown_layout(name: str) -> str:
    return f"unknown layout {name!r}; known: {', '.join(LAYOUTS)}"


def _database(name: str) -> str:
    if problem := database_problem(name):
        raise ValueError(problem)
    return name


def _collection(name: str) -> str:
    if name and (problem := collection_problem(name)):
        raise ValueError(problem)
    return name


def _layout(name: str) -> str:
    if name not in LAYOUTS:
        raise ValueError(_unknown_layout(name))
    return name


def _concern(text: str | None) -> str | None:
    if text is not None and not _CONCERN.fullmatch(text):
        raise ValueError("is not majority, a number of members (1 to 50) or a tag")
    if text == "0":
        raise ValueError(_UNACKNOWLEDGED)
    return text


class MongoSinkConfig(Config):
    """Settings of the sink. Every other option of a connection belongs into ``connection.uri``."""

    refused = {
        "writemodel.strategy": _IDENTITY,
        "document.id.strategy": _IDENTITY,
        "document.id.strategy.": _IDENTITY,
        "delete.": _IDENTITY,
        "delete.writemodel.strategy": _IDENTITY,
        "change.data.capture.handler": _IDENTITY,
        "post.processor.chain": "transforms change records before the sink. Write it as a transform",
        "bulk.write.ordered": "a bad record does not affect others. Remove this setting",
        "mongo.errors.": _ERRORS,
        "errors.log.": "every error is logged with its record's offset. Remove this setting",
        "max.num.retries": _RETRIES,
        "retries.defer.timeout": _RETRIES,
        "rate.limiting.": "inserts adapt to the server: a slow one gets smaller inserts. Remove this setting",
        "namespace.mapper": "use topic.override.<topic>.database and topic.override.<topic>.collection",
        "namespace.mapper.": "use topic.override.<topic>.database and topic.override.<topic>.collection",
    }

    connection_uri: Secret = setting(
        "connection.uri",
        Secret("mongodb://127.0.0.1:27017"),
        doc="Any connection string of MongoDB, with every option of pymongo: TLS, several hosts, "
        "mongodb+srv, X.509, and others. Default: mongodb://127.0.0.1:27017.",
        importance="high",
    )
    database: Annotated[str, AfterValidator(_database)] = setting(
        "database", doc="The database to write to.", min_length=1, importance="high"
    )
    collection: Annotated[str, AfterValidator(_collection)] = setting(
        "collection", "", doc="The collection to write to. Empty: the topic's name.", importance="high"
    )
    layout: Annotated[str, AfterValidator(_layout)] = setting(
        "layout",
        "reading",
        doc="The form of documents: reading, point (one document for each value), timeseries, "
        "cloudagent (the old agent's), command-history (commands and results), value (any data, "
        "unchanged).",
        importance="high",
    )
    publishes: CommaList = setting(
        "publishes",
        (),
        doc="The publications of a device to store: ALL, MULTI, POINT, OTHER. Others are counted as "
        "skipped.<kind>. Empty: ALL,MULTI for layout reading, also POINT for layouts point and "
        "timeseries.",
    )
    topic_overrides: tuple[TopicOverride, ...] = setting(
        "topic.override",
        (),
        doc="Settings for one topic: topic.override.<topic>.database, .collection, .layout.",
    )
    tombstones: Literal["skip", "store"] = setting(
        "tombstones",
        "skip",
        doc="Records without a value, which mark their key as deleted. skip counts them as "
        "skipped.tombstone; store, with layout value, writes {key, value: null}.",
    )
    write_concern: Annotated[str | None, AfterValidator(_concern)] = setting(
        "write.concern",
        None,
        doc="majority, a number of members, or a tag. Default: the URI's w, else majority. 0 is rejected.",
    )
    max_batch_size: int = setting(
        "max.batch.size", 1000, ge=1, le=100_000, doc="The largest number of documents in one insert."
    )
    create_indexes: bool = setting("create.indexes", True, doc="Whether to create the indexes of the layout.")
    rollups: bool = setting(
        "rollups",
        False,
        doc="Layouts reading, point and timeseries: whether to keep the first, smallest, largest and last "
        "value of each minute and hour of a point in <collection>.rollup, and a list of all points in "
        "<collection>.points. Charts of long ranges need them. They cost at least two upserts for each point "
        "and commit of offsets, and one for each point and five minutes.",
    )
    server_selection_timeout_ms: int | None = setting(
        "server.selection.timeout.ms",
        None,
        ge=1,
        doc="How long one call looks for a server. Default: the URI's, else 2000.",
    )
    socket_timeout_ms: int | None = setting(
        "socket.timeout.ms",
        None,
        ge=1,
        doc="How long one call waits for an answer. Default: the URI's, else 4000.",
    )
    socket_timeout_max_ms: int = setting(
        "socket.timeout.max.ms",
        60_000,
        ge=1,
        doc="How long an insert of a single document may take, if socket.timeout.ms is too short for "
        "it. A larger insert without an answer in socket.timeout.ms is retried with half as many "
        "documents.",
    )
    cloudagent_source: str = setting(
        "cloudagent.source", "", doc="Layout cloudagent: the field source. Empty: the platform's name."
    )
    cloudagent_date: Literal["date", "text"] = setting(
        "cloudagent.date",
        "date",
        doc="Layout cloudagent: date (a BSON date), or text like the old agent's, but in UTC.",
    )

    @model_validator(mode="before")
    @classmethod
    def _gather_overrides(cls, settings: Any) -> Any:
        if not isinstance(settings, Mapping):
            return settings
        overrides = {key for key in settings if str(key).startswith(_OVERRIDE)}
        if not overrides:
            return settings
        rest = {key: value for key, value in settings.items() if key not in overrides}
        rest["topic.override"] = tuple(
            TopicOverride(topic, name, settings[key])
            for key in sorted(overrides)
            for topic, _, name in [key[len(_OVERRIDE) :].rpartition(".")]
        )
        return rest

    def problems(self) -> list[tuple[str, str]]:
        """Return the problems of kinds, overrides and URI, each with its key."""
        problems = []
        unknown = [kind for kind in self.publishes if kind not in KINDS]
        if unknown:
            problems.append(("publishes", f"{unknown[0]!r} is not a kind; known: {', '.join(KINDS)}"))
        for override in self.topic_overrides:
            if problem := _override_problem(override):
                problems.append((f"{_OVERRIDE}{override.topic}.{override.name}", problem))
        try:
            self.client().close()
            w = self.write_concern or uri_options(self.connection_uri.get_secret_value()).get("w")
        except ValueError as error:
            problems.append(("connection.uri", str(error)))
        else:
            if str(w) == "0":
                problems.append(("connection.uri", f"w={_UNACKNOWLEDGED}"))
        return problems

    def client(self) -> Client:
        """Return a client that is not connected yet. Raises ``ValueError`` on a wrong URI.

        The runtime waits for the end of an outage, not the driver: calls have short time-outs and no retries.
        """
        socket = self.socket_timeout_ms or 4000
        chosen = {
            "w": _number(self.write_concern),
            "serverSelectionTimeoutMS": self.server_selection_timeout_ms,
            "socketTimeoutMS": self.socket_timeout_ms,
        }
        defaults = {
            "w": "majority",
            "wTimeoutMS": socket * 3 // 4,
            "serverSelectionTimeoutMS": 2000,
            "connectTimeoutMS": 2000,
            "socketTimeoutMS": socket,
            "waitQueueTimeoutMS": 2000,
            "retryWrites": False,
            "retryReads": False,
        }
        uri = self.connection_uri.get_secret_value()
        return create_client(
            uri, defaults, {name: value for name, value in chosen.items() if value is not None}
        )

    def destination(self, topic: str) -> Destination:
        """Return the destination of a topic's records."""
        overrides = {name: value for of, name, value in self.topic_overrides if of == topic}
        return Destination(
            overrides.get("database", self.database),
            overrides.get("collection", self.collection) or topic,
            overrides.get("layout", self.layout),
        )

    @property
    def options(self) -> LayoutOptions:
        """The options of the layouts."""
        return LayoutOptions(
            self.publishes,
            self.cloudagent_source,
            self.cloudagent_date == "text",
            self.tombstones == "store",
        )


def _override_problem(override: TopicOverride) -> str:
    """Return what is wrong with an override; empty if nothing is."""
    topic, name, value = override
    if not topic or name not in _OVERRIDABLE:
        near = difflib.get_close_matches(name, _OVERRIDABLE, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_OVERRIDABLE)}"
        return f"unknown setting of a topic; {hint}"
    if name == "layout":
        return "" if value in LAYOUTS else _unknown_layout(value)
    if name == "collection":
        return collection_problem(value) if value else ""  # empty: the topic's name
    return database_problem(value)


def _number(concern: str | None) -> str | int | None:
    return int(concern) if concern and concern.isdigit() else concern
