"""What a schema's text means: read, compared, refused. Pure.

AVRO only. For JSON Schema and PROTOBUF there is no kept library in Python that decides whether one version
reads another's data, and a registry that takes what it cannot check protects nobody.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tieline.api import Schema

TYPES = ("AVRO",)

_FIRST = ("name", "namespace", "type", "fields", "symbols", "items", "values", "size", "default")


class InvalidSchema(ValueError):
    """No schema of its type; the sentence says why."""


class Parsed(NamedTuple):
    """A schema that was read.

    ``canonical``: two schemas are the same where this text is. ``normalized``: the same for texts that
    say the same in another order of their attributes. ``references``: (name, text) of what it is built on,
    each behind what it needs itself.
    """

    schema_type: str
    canonical: str
    references: tuple[tuple[str, str], ...] = ()

    @property
    def normalized(self) -> str:
        """Attributes in one order, those without a meaning of their own (``doc``, …) last, by name."""
        return json.dumps(_ordered(json.loads(self.canonical)), separators=(",", ":"))

    @property
    def definition(self) -> Any:
        """The schema as Apache avro has it: names resolved."""
        return _definition(self.canonical, self.references)


def parse(schema_type: str, text: str, references: Mapping[str, str]) -> Parsed:
    """Read a schema. ``references``: texts of what it is built on, each behind what it needs itself.

    Raises ``InvalidSchema``: fastavro, which writes and reads our data, and Apache avro both have to take it.
    """
    if schema_type not in TYPES:
        told = (
            f"{schema_type[:40]!r} schemas are not taken: there is nothing here to check them with; AVRO is"
        )
        raise InvalidSchema(told)
    parts = tuple(references.items())
    try:
        canonical = Schema.parse(text).text if not parts else _compact(text)
    except ValueError as error:
        raise InvalidSchema(str(error)) from error
    _definition(canonical, parts)
    return Parsed(schema_type, canonical, parts)


def inlined(text: str, references: Mapping[str, str]) -> str:
    """An Avro schema with all that it refers to written into it, where each is named for the first time.

    Both are schemas that were checked; ``references`` as for ``parse``.
    """
    waiting = {_full_name(part, ""): part for part in map(json.loads, references.values())}
    return json.dumps(_written_in(json.loads(text), "", waiting), separators=(",", ":"))


def _written_in(part: Any, space: str, waiting: dict[str, Any]) -> Any:
    if isinstance(part, list):
        return [_written_in(branch, space, waiting) for branch in part]
    if isinstance(part, str):
        name = part if part in waiting or "." in part or not space else f"{space}.{part}"
        found = waiting.pop(name, None)
        if found is None:
            return part
        own = name.rpartition(".")[0]  # said, since it is not that of where it stands now
        return _written_in({**found, "name": name.rpartition(".")[2], "namespace": own}, space, waiting)
    if not isinstance(part, dict):
        return part
    if "name" in part:
        space = _full_name(part, space).rpartition(".")[0]
    out = {}
    for key, value in part.items():
        if key == "fields":
            value = [{**f, "type": _written_in(f["type"], space, waiting)} for f in value]
        elif key in ("type", "items", "values"):
            value = _written_in(value, space, waiting)
        out[key] = value
    return out


def _full_name(part: Any, space: str) -> str:
    name = str(part["name"])
    own = part.get("namespace", space)
    return name if "." in name or not own else f"{own}.{name}"


def _compact(text: str) -> str:
    try:
        return json.dumps(json.loads(text), separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise InvalidSchema(f"not an Avro schema: no JSON: {error}") from error


@functools.lru_cache(maxsize=512)
def _definition(text: str, references: tuple[tuple[str, str], ...]) -> Any:
    import avro.errors
    import avro.name
    import avro.schema

    names = avro.name.Names()
    try:
        for _, needed in references:
            avro.schema.make_avsc_object(json.loads(needed), names)
        return avro.schema.make_avsc_object(json.loads(text), names)
    except (
        avro.errors.AvroException,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
    ) as error:
        raise InvalidSchema(f"not an Avro schema: {type(error).__name__}: {error}"[:1000]) from error


def _ordered(part: Any) -> Any:
    if isinstance(part, list):
        return [_ordered(item) for item in part]
    if not isinstance(part, dict):
        return part
    rank = {name: place for place, name in enumerate(_FIRST)}
    keys = sorted(part, key=lambda name: (rank.get(name, len(_FIRST)), name))
    # A default is data, whose order is its own; a type that is a name alone may be written either way.
    found = {key: part[key] if key == "default" else _ordered(part[key]) for key in keys}
    return found["type"] if list(found) == ["type"] and isinstance(found["type"], str) else found
