"""A schema's text, and what is refused, held against what Avro Java itself did (see ``avro_java``)."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from tieline.registry.model.avro_schema import InvalidSchemaError, parse

TABLE = json.loads(Path(__file__).parent.joinpath("avro_java", "table.json").read_text("utf-8"))
TAKEN = [row for row in TABLE if not row.get("refused")]
REFUSED = [row for row in TABLE if row.get("refused")]


def parsed(row):
    return parse("AVRO", row["schema"], {str(at): text for at, text in enumerate(row.get("references", ()))})


def test_each_schema_that_java_takes_is_taken_and_has_its_text():
    assert [
        (row["schema"], found.canonical, found.problems)
        for row in TAKEN
        if ((found := parsed(row)).canonical, found.problems) != (row["text"], ())
    ] == []


def test_each_schema_that_java_refuses_is_refused_with_the_reason_or_has_its_text_where_readers_take_it():
    wrong = []
    for row in REFUSED:
        with suppress(InvalidSchemaError):  # readers do not take it either
            found = parsed(row)
            if not found.problems or row["text"] not in (None, found.canonical):
                wrong.append((row["schema"], found.canonical, found.problems))
    assert wrong == []


def test_the_text_of_each_text_is_itself():
    wrong = []
    for row in TAKEN:
        again = parsed({**row, "schema": row["text"]})
        normal = parsed({**row, "schema": again.normalized})
        if again.canonical != row["text"] or (normal.canonical, normal.normalized) != (again.normalized,) * 2:
            wrong.append((row["schema"], again.canonical, normal.canonical))
    assert wrong == []


def test_the_table_holds_what_java_takes_and_what_it_refuses():
    assert (len(TAKEN), len(REFUSED)) == (491, 627)


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (
            {"type": "record", "name": "R", "fields": [{"name": "a-b", "type": "int"}]},
            "the field 'a-b' of 'R': a name has letters, digits and underscores, and does not begin with a"
            " digit",
        ),
        (
            {
                "type": "record",
                "name": "c.R",
                "fields": [{"name": "f", "type": "int", "default": 3000000000}],
            },
            "the field 'f' of 'c.R': the default 3000000000 is not of type int",
        ),
        (
            {"type": "record", "name": "R", "fields": [{"name": "f", "type": ["null", "int"], "default": 1}]},
            "the field 'f' of 'R': the default 1 is not of type null, the union's first branch",
        ),
        (
            {"type": "enum", "name": "E", "namespace": "com.my-company.plant", "symbols": ["A"]},
            "the enum 'com.my-company.plant.E': "
            "a name has letters, digits and underscores, and does not begin with a digit, not 'my-company'",
        ),
    ],
)
def test_what_java_refuses_is_named(schema, told):
    assert parse("AVRO", json.dumps(schema), {}).problems == (told,)
