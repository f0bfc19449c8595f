"""The message formats: valid for two implementations, documented, and changed only compatibly.

``schemas/released/<version>/<owner>/<Name>.avsc`` holds what was ever released.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import avro.schema
import pytest

from tieline.api import Schema
from tieline.registry.release.check import check_formats
from tieline.registry.release.reference_page import render_page

SCHEMAS = Path(__file__).parents[2] / "schemas"
FILES = sorted(p for p in SCHEMAS.glob("*/*.avsc") if p.parent.name != "released")
NAMES = [f"{p.parent.name}.{p.stem}" for p in FILES]


def wrong(folder: Path, *released: str, now: str) -> list[str]:
    """Return the problems that `tieline schemas check` reports; ``released`` has the oldest version first."""
    for version, text in enumerate(released, 9):  # 9, 10, …: numbers, not texts
        path = folder / "released" / f"0.{version}" / "lab" / "Reading.avsc"
        path.parent.mkdir(parents=True)
        path.write_text(text, "utf-8")
    (folder / "lab").mkdir()
    (folder / "lab" / "Reading.avsc").write_text(now, "utf-8")
    (found,) = check_formats(folder)
    assert (found.name, found.released) == ("lab.Reading", len(released))
    return found.problems


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


def test_every_schema_is_found_by_its_full_name():
    assert {"volttron.BusMessage", "volttron.DeviceReading"} <= set(NAMES)
    assert [Schema.named(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_apache_avro_reads_the_schema_and_agrees_on_its_name(path):
    parsed = avro.schema.parse(path.read_text("utf-8"))
    assert isinstance(parsed, avro.schema.RecordSchema)
    assert parsed.fullname == Schema.named(f"{path.parent.name}.{path.stem}").name


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_record_and_field_is_documented(path):
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


def test_every_format_reads_all_its_released_versions_and_none_is_missing():
    found = check_formats(SCHEMAS)
    assert {each.name for each in found} >= set(NAMES)
    assert [each for each in found if each.problems] == []
    assert min(each.released for each in found) >= 1


def test_the_reference_page_matches_the_schemas():
    """If not, run `tieline schemas docs schemas > docs/reference/formats.md`."""
    page = render_page(Schema.parse(path.read_text("utf-8")).text for path in FILES)
    assert (SCHEMAS.parent / "docs" / "reference" / "formats.md").read_text("utf-8") == page


def test_a_released_format_that_was_removed_is_found(tmp_path):
    path = tmp_path / "released" / "1.0" / "lab" / "Gone.avsc"
    path.parent.mkdir(parents=True)
    path.write_text('"long"', "utf-8")
    assert [(each.name, len(each.problems)) for each in check_formats(tmp_path)] == [("lab.Gone", 1)]


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
    """Return READING with some fields replaced, added or, if ``None``, removed."""
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
    ids=["new field without a default", "another type", "a narrower type", "a symbol removed from an enum"],
)
def test_a_planted_incompatible_change_is_found(change, tmp_path):
    assert len(wrong(tmp_path, json.dumps(READING), now=changed(**change))) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"unit": {"type": "string", "default": ""}},
        {"value": {"type": "double"}},
        {"device": None},
        {"kind": {"type": {"type": "enum", "name": "Kind", "symbols": ["A", "B", "C"], "default": "A"}}},
    ],
    ids=["new field with a default", "a promotion", "a removed field", "another symbol"],
)
def test_a_compatible_change_is_accepted(change, tmp_path):
    assert wrong(tmp_path, json.dumps(READING), now=changed(**change)) == []


def test_a_conflict_with_an_old_version_is_found_although_a_newer_one_fits(tmp_path):
    first, second = json.dumps(READING), changed(unit={"type": "string"})
    assert wrong(tmp_path / "one", second, now=second) == []
    (reported,) = wrong(tmp_path / "two", first, second, now=second)
    assert reported.startswith(
        "what the latest version but 1 wrote cannot be read: the field 'unit' is missing"
    )


def test_an_invalid_schema_is_reported_as_one_problem(tmp_path):
    assert len(wrong(tmp_path, json.dumps(READING), now="{")) == 1
