"""The records of the topic ``_schemas`` as Confluent's registry writes them, and the events they stand for.

Pure. Keys and values are JSON: what another registry knows more of is kept where it belongs to a schema
(``metadata``, ``ruleSet``) or a configuration, and passed over elsewhere. The order of a key's fields
matters, since compaction compares its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

MAX_ID = 2**31 - 1  # four bytes with a sign, as Java's registries have it
MODES = ("READWRITE", "READONLY", "READONLY_OVERRIDE", "IMPORT", "FORWARD")


class Reference(NamedTuple):
    """How a schema calls another one, and where that is registered."""

    name: str
    subject: str
    version: int


class Content(NamedTuple):
    """What a schema is, wherever it is registered: two of equal content have one id.

    ``metadata`` and ``rules`` are JSON with sorted keys, as a client sent it; empty: none.
    """

    type: str
    text: str
    references: tuple[Reference, ...] = ()
    metadata: str = ""
    rules: str = ""


class SchemaStored(NamedTuple):
    """A version of a subject: new, or ``deleted`` (softly: its id can still be read)."""

    subject: str
    version: int
    id: int
    content: Content
    deleted: bool = False


class SchemaGone(NamedTuple):
    """A version was deleted for good."""

    subject: str
    version: int


class SubjectDeleted(NamedTuple):
    """All versions of a subject up to this one were deleted softly."""

    subject: str
    version: int


class SubjectsCleared(NamedTuple):
    """What was deleted softly is gone, of this subject or (none) of all: a registry prepared its import."""

    subject: str | None


@dataclass(frozen=True)
class ConfigSet:
    """The configuration of a subject, or (none) of all; no ``fields``: it was deleted."""

    subject: str | None
    fields: Mapping[str, Any] = field(default_factory=dict)


class ModeSet(NamedTuple):
    """The mode of a subject, or (none) of all; none: it was deleted."""

    subject: str | None
    mode: str | None


class IdsUsed(NamedTuple):
    """No id up to this one is free, also where nothing with it is left.

    Confluent's NOOP record, with a value that other registries do not look at: without it, an id whose
    schema was deleted for good would be given away a second time, and old data read with the wrong one.
    """

    max_id: int


Event: TypeAlias = (
    SchemaStored | SchemaGone | SubjectDeleted | SubjectsCleared | ConfigSet | ModeSet | IdsUsed
)


class Malformed(ValueError):
    """No record of a registry's."""


def decode(key: bytes | None, value: bytes | None) -> Event | None:
    """The event of a record, none where it has no effect. Raises ``Malformed``."""
    name = _object(key)
    if name is None:
        raise Malformed("no key")
    keytype, subject = name.get("keytype"), name.get("subject")
    if not (subject is None or isinstance(subject, str)):
        raise Malformed("a subject that is no text")
    found = _object(value)
    if keytype == "SCHEMA":
        return _schema(_text(subject), _number(name.get("version")), found)
    if keytype == "CONFIG":
        return ConfigSet(subject, _config(found) if found else {})
    if keytype == "MODE":
        return ModeSet(subject, None if found is None else _mode(found))
    if keytype == "NOOP":
        used = found.get("maxId") if found else None
        return IdsUsed(_number(used)) if used is not None else None
    if found is None:
        return None
    if keytype == "DELETE_SUBJECT":
        # Version 0: a subject without versions was deleted.
        return SubjectDeleted(_text(subject), _number(found.get("version"), least=0))
    if keytype == "CLEAR_SUBJECT":
        return SubjectsCleared(subject)
    return None  # CONTEXT, ASSOCIATION, and what is to come


def encode(event: Event) -> tuple[bytes, bytes | None]:
    """Key and value of the record that stands for an event."""
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
    """JSON with sorted keys: equal values have equal texts. Nothing, or an empty map, is no text."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True) if value else ""


def _schema(subject: str, version: int, value: Mapping[str, Any] | None) -> Event:
    if value is None:
        return SchemaGone(subject, version)
    schema_id, text = _number(value.get("id")), value.get("schema")
    kind = value.get("schemaType") or "AVRO"
    if not isinstance(text, str) or not isinstance(kind, str):
        raise Malformed("a schema that is no text")
    references = value.get("references") or []
    if not isinstance(references, list):
        raise Malformed("references that are no list")
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
        raise Malformed("a reference that is no map")
    name = value.get("name")
    return Reference(_text(name), _text(value.get("subject")), _number(value.get("version")))


def _config(value: Mapping[str, Any]) -> dict[str, Any]:
    level = value.get("compatibilityLevel")
    if not (level is None or isinstance(level, str)):
        raise Malformed("a compatibility level that is no text")
    return {name: item for name, item in value.items() if item is not None}


def _mode(value: Mapping[str, Any]) -> str:
    mode = value.get("mode")
    if mode not in MODES:
        raise Malformed("an unknown mode")
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
    of_version = {} if version is None else {"version": version}
    magic = 1 if keytype == "SCHEMA" else 0
    return _bytes({"keytype": keytype, "subject": subject, **of_version, "magic": magic})


def _bytes(value: Any) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can say it, UTF-8 cannot
        return json.dumps(value, separators=(",", ":")).encode()


def _object(data: bytes | None) -> dict[str, Any] | None:
    if not data:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed("no JSON") from error
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Malformed("no JSON object")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Malformed("a name that is no text")
    return value


def _number(value: Any, least: int = 1) -> int:
    if type(value) is not int or not least <= value <= MAX_ID:
        raise Malformed("a number that is none, or out of range")
    return value
