"""The records of the topic ``_schemas`` as Confluent's registry writes them, and the events that they mean.

Pure. Keys and values are JSON. Fields that only other registries use are kept if they belong to a schema
(``metadata``, ``ruleSet``) or to a configuration, and ignored elsewhere. The order of a key's fields matters,
since compaction compares its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

MAX_ID = 2**31 - 1  # a signed integer of four bytes, as in Java's registries
MODES = ("READWRITE", "READONLY", "READONLY_OVERRIDE", "IMPORT", "FORWARD")


class Reference(NamedTuple):
    """The name by which a schema refers to another one, and where that is registered."""

    name: str
    subject: str
    version: int


class Content(NamedTuple):
    """A schema without its subject and version. Equal contents have one id.

    ``metadata`` and ``rules`` are JSON with sorted keys, as a client sent them; empty if it sent none.
    """

    type: str
    text: str
    references: tuple[Reference, ...] = ()
    metadata: str = ""
    rules: str = ""


class SchemaStored(NamedTuple):
    """A version of a subject was added, or softly deleted: its id can still be read."""

    subject: str
    version: int
    id: int
    content: Content
    deleted: bool = False


class SchemaGone(NamedTuple):
    """A version was permanently deleted."""

    subject: str
    version: int


class SubjectDeleted(NamedTuple):
    """All versions of a subject up to this one were softly deleted."""

    subject: str
    version: int


class SubjectsCleared(NamedTuple):
    """The softly deleted versions of a subject, or of all (``None``), were removed before an import."""

    subject: str | None


@dataclass(frozen=True)
class ConfigSet:
    """The configuration of a subject, or of all (``None``), was set; without ``fields`` it was deleted."""

    subject: str | None
    fields: Mapping[str, Any] = field(default_factory=dict)


class ModeSet(NamedTuple):
    """The mode of a subject, or of all (``None``), was set; if ``mode`` is ``None`` it was deleted."""

    subject: str | None
    mode: str | None


class IdsUsed(NamedTuple):
    """All ids up to this one are used, even if no schema with them is left.

    It is Confluent's NOOP record with a value that other registries ignore. Without it, the id of a
    permanently deleted schema would be given to another one, and old data read by the wrong schema.
    """

    max_id: int


Event: TypeAlias = (
    SchemaStored | SchemaGone | SubjectDeleted | SubjectsCleared | ConfigSet | ModeSet | IdsUsed
)


class MalformedRecordError(ValueError):
    """A record that no registry writes."""


def decode(key: bytes | None, value: bytes | None) -> Event | None:
    """Return the event of a record, or ``None`` if it has no effect. Raises ``MalformedRecordError``."""
    fields = _object(key)
    if fields is None:
        raise MalformedRecordError("the record has no key")
    keytype, subject = fields.get("keytype"), fields.get("subject")
    if not (subject is None or isinstance(subject, str)):
        raise MalformedRecordError("the subject is not a string")
    content = _object(value)
    if keytype == "SCHEMA":
        return _schema(_text(subject), _number(fields.get("version")), content)
    if keytype == "CONFIG":
        return ConfigSet(subject, _config(content) if content else {})
    if keytype == "MODE":
        return ModeSet(subject, None if content is None else _mode(content))
    if keytype == "NOOP":
        max_id = content.get("maxId") if content else None
        return IdsUsed(_number(max_id)) if max_id is not None else None
    if content is None:
        return None
    if keytype == "DELETE_SUBJECT":
        # Version 0 means that a subject without versions was deleted.
        return SubjectDeleted(_text(subject), _number(content.get("version"), minimum=0))
    if keytype == "CLEAR_SUBJECT":
        return SubjectsCleared(subject)
    return None  # CONTEXT, ASSOCIATION, and those of later versions of Confluent's registry


def encode(event: Event) -> tuple[bytes, bytes | None]:
    """Return the key and value of the record of an event."""
    if isinstance(event, SchemaStored):
        return _key("SCHEMA", event.subject, event.version), _bytes(_schema_value(event))
    if isinstance(event, SchemaGone):
        return _key("SCHEMA", event.subject, event.version), None
    if isinstance(event, SubjectDeleted):
        value = {"subject": event.subject, "version": event.version}
        return _key("DELETE_SUBJECT", event.subject), _bytes(value)
    if isinstance(event, SubjectsCleared):
        return _key("CLEAR_SUBJECT", event.subject), _bytes({"subject": event.subject})
    if isinstance(event, ConfigSet):
        return _key("CONFIG", event.subject), _bytes(dict(event.fields)) if event.fields else None
    if isinstance(event, ModeSet):
        return _key("MODE", event.subject), _bytes({"mode": event.mode}) if event.mode else None
    return _bytes({"keytype": "NOOP", "magic": 0}), _bytes({"maxId": event.max_id})


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys, so that equal values have equal texts. An empty value has no text."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True) if value else ""


def _schema(subject: str, version: int, value: Mapping[str, Any] | None) -> Event:
    if value is None:
        return SchemaGone(subject, version)
    schema_id, text = _number(value.get("id")), value.get("schema")
    kind = value.get("schemaType") or "AVRO"
    if not isinstance(text, str) or not isinstance(kind, str):
        raise MalformedRecordError("the schema or its type is not a string")
    references = value.get("references") or []
    if not isinstance(references, list):
        raise MalformedRecordError("references are not a list")
    content = Content(
        kind,
        text,
        tuple(map(_reference, references)),
        canonical_json(value.get("metadata")),
        canonical_json(value.get("ruleSet")),
    )
    return SchemaStored(subject, version, schema_id, content, value.get("deleted") is True)


def _reference(value: Any) -> Reference:
    if not isinstance(value, dict):
        raise MalformedRecordError("a reference is not an object")
    return Reference(_text(value.get("name")), _text(value.get("subject")), _number(value.get("version")))


def _config(value: Mapping[str, Any]) -> dict[str, Any]:
    level = value.get("compatibilityLevel")
    if not (level is None or isinstance(level, str)):
        raise MalformedRecordError("the compatibility level is not a string")
    return {name: item for name, item in value.items() if item is not None}


def _mode(value: Mapping[str, Any]) -> str:
    mode = value.get("mode")
    if mode not in MODES:
        raise MalformedRecordError("the mode is unknown")
    return str(mode)


def _schema_value(event: SchemaStored) -> dict[str, Any]:
    return {
        "subject": event.subject,
        "version": event.version,
        "id": event.id,
        **_optional_fields(event.content),
        "schema": event.content.text,
        "deleted": event.deleted,
    }


def content_json(content: Content) -> dict[str, Any]:
    """Return a schema as the JSON of Confluent's HTTP interface."""
    return {"schema": content.text, **_optional_fields(content)}


def _optional_fields(content: Content) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if content.type != "AVRO":
        fields["schemaType"] = content.type
    if content.references:
        fields["references"] = [reference._asdict() for reference in content.references]
    if content.metadata:
        fields["metadata"] = json.loads(content.metadata)
    if content.rules:
        fields["ruleSet"] = json.loads(content.rules)
    return fields


def _key(keytype: str, subject: str | None, version: int | None = None) -> bytes:
    version_field = {} if version is None else {"version": version}
    magic = 1 if keytype == "SCHEMA" else 0
    return _bytes({"keytype": keytype, "subject": subject, **version_field, "magic": magic})


def _bytes(value: Any) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can express and UTF-8 cannot
        return json.dumps(value, separators=(",", ":")).encode()


def _object(data: bytes | None) -> dict[str, Any] | None:
    if not data:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedRecordError("not JSON") from error
    if value is None:
        return None
    if not isinstance(value, dict):
        raise MalformedRecordError("not a JSON object")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise MalformedRecordError("a name is missing or not a string")
    return value


def _number(value: Any, minimum: int = 1) -> int:
    if type(value) is not int or not minimum <= value <= MAX_ID:
        raise MalformedRecordError("a number is missing or out of range")
    return value
