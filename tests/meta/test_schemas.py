"""The message formats: valid for two implementations, documented, and changed only compatibly.

``schemas/released/<version>/<owner>/<Name>.avsc`` holds what was ever released; it is empty until the
first release.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import avro.schema
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from tieline.api import Schema

SCHEMAS = Path(__file__).parents[2] / "schemas"
FILES = sorted(p for p in SCHEMAS.glob("*/*.avsc") if p.parent.name != "released")
NAMES = [f"{p.parent.name}.{p.stem}" for p in FILES]


def released(name: str, folder: Path = SCHEMAS / "released") -> list[str]:
    owner, _, short = name.rpartition(".")
    return [path.read_text("utf-8") for path in sorted(folder.glob(f"*/{owner}/{short}.avsc"))]


def conflicts(reader: str, writers: list[str]) -> list[str]:
    """Why ``reader`` cannot read what some of ``writers`` wrote (BACKWARD_TRANSITIVE)."""
    mine = avro.schema.parse(reader)
    results = [
        ReaderWriterCompatibilityChecker().get_compatibility(mine, avro.schema.parse(writer))
        for writer in writers
    ]
    return [
        f"{'/'.join(result.locations)}: {'; '.join(result.messages)}"
        for result in results
        if result.compatibility is not SchemaCompatibilityType.compatible
    ]


def fields(schema: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, list):
        for branch in schema:
            yield from fields(branch, where)
    elif isinstance(schema, dict):
        for field in schema.get("fields", ()):
            place = f"{where}{schema['name']}.{field['name']}"
            yield place, field
            yield from fields(field["type"], "")
        for inner in ("items", "values", "type"):
            if not isinstance(schema.get(inner, ""), str):
                yield from fields(schema[inner], where)


def test_there_are_schemas_and_each_is_found_by_its_full_name():
    assert {"volttron.BusMessage", "volttron.DeviceReading"} <= set(NAMES)
    assert [Schema.named(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_apache_avro_reads_the_schema_and_agrees_on_its_name(path):
    parsed = avro.schema.parse(path.read_text("utf-8"))
    assert isinstance(parsed, avro.schema.RecordSchema)
    assert parsed.fullname == Schema.named(f"{path.parent.name}.{path.stem}").name


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_record_and_field_says_what_it_means(path):
    schema = json.loads(path.read_text("utf-8"))
    assert schema["doc"]
    # A record of one field, such as JsonText, says it once, at the record.
    small = ("JsonText.", "PointMetadata.")
    silent = [
        place for place, field in fields(schema) if not field.get("doc") and not place.startswith(small)
    ]
    assert silent == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_enum_has_a_default_so_that_it_may_get_a_symbol(path):
    def enums(schema: Any) -> Iterator[dict[str, Any]]:
        if isinstance(schema, dict):
            if schema.get("type") == "enum":
                yield schema
            for value in schema.values():
                yield from enums(value)
        elif isinstance(schema, list):
            for item in schema:
                yield from enums(item)

    assert [e["name"] for e in enums(json.loads(path.read_text("utf-8"))) if "default" not in e] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_reads_all_that_was_ever_released(name):
    text = Schema.named(name).text
    assert conflicts(text, [text, *released(name)]) == []


def test_a_schema_that_was_released_is_still_there(tmp_path):
    known = {f"{p.parent.name}.{p.stem}" for p in (SCHEMAS / "released").glob("*/*/*.avsc")}
    assert known <= set(NAMES)


READING = {
    "type": "record",
    "name": "Reading",
    "namespace": "lab",
    "fields": [
        {"name": "device", "type": "string"},
        {"name": "value", "type": "long"},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"], "default": "A"}},
    ],
}


def changed(**fields_by_name: Any) -> str:
    """READING with some fields replaced, added, or (none) taken away."""
    fields = {field["name"]: field for field in READING["fields"]}  # type: ignore[index]
    for name, field in fields_by_name.items():
        if field is None:
            del fields[name]
        else:
            fields[name] = {"name": name, **field}
    return json.dumps({**READING, "fields": list(fields.values())})


@pytest.mark.parametrize(
    "change",
    [
        {"unit": {"type": "string"}},
        {"value": {"type": "string"}},
        {"value": {"type": "int"}},
        {"kind": {"type": {"type": "enum", "name": "Kind", "symbols": ["A"]}}},
    ],
    ids=["new field without a default", "another type", "a narrower type", "a symbol taken from an enum"],
)
def test_a_planted_incompatible_change_is_found(change, tmp_path):
    for version, text in (("1", json.dumps(READING)), ("2", changed(**change))):
        (tmp_path / version / "lab").mkdir(parents=True)
        (tmp_path / version / "lab" / "Reading.avsc").write_text(text, "utf-8")
    assert len(conflicts(changed(**change), released("lab.Reading", tmp_path))) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"unit": {"type": "string", "default": ""}},
        {"value": {"type": "double"}},
        {"device": None},
        {"kind": {"type": {"type": "enum", "name": "Kind", "symbols": ["A", "B", "C"], "default": "A"}}},
    ],
    ids=["new field with a default", "a promotion", "a field taken away", "a symbol more"],
)
def test_a_compatible_change_is_not_found_fault_with(change):
    assert conflicts(changed(**change), [json.dumps(READING)]) == []


def test_a_conflict_with_an_old_version_is_found_behind_a_newer_one_that_fits():
    first, second = json.dumps(READING), changed(unit={"type": "string"})
    assert conflicts(second, [second]) == []
    assert len(conflicts(second, [first, second])) == 1
