"""Canonical texts and rejected schemas, compared with what Avro Java did (``avro_java``)."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from tieline.registry.model.avro_schema import InvalidSchemaError, parse

TABLE = json.loads(Path(__file__).parent.joinpath("avro_java", "table.json").read_text("utf-8"))
ACCEPTED = [row for row in TABLE if not row.get("refused")]
REJECTED = [row for row in TABLE if row.get("refused")]


def parse_row(row):
    return parse(
        "AVRO", row["schema"], {str(index): text for index, text in enumerate(row.get("references", ()))}
    )


def test_each_schema_that_java_accepts_is_accepted_and_has_the_same_text():
    assert [
        (row["schema"], schema.canonical, schema.problems)
        for row in ACCEPTED
        if ((schema := parse_row(row)).canonical, schema.problems) != (row["text"], ())
    ] == []


def test_each_schema_that_java_rejects_is_rejected_or_has_problems_and_the_same_text():
    wrong = []
    for row in REJECTED:
        with suppress(InvalidSchemaError):  # readers reject it too
            schema = parse_row(row)
            if not schema.problems or row["text"] not in (None, schema.canonical):
                wrong.append((row["schema"], schema.canonical, schema.problems))
    assert wrong == []


def test_a_canonical_text_is_its_own_canonical_text():
    wrong = []
    for row in ACCEPTED:
        again = parse_row({**row, "schema": row["text"]})
        normal = parse_row({**row, "schema": again.normalized})
        if again.canonical != row["text"] or (normal.canonical, normal.normalized) != (again.normalized,) * 2:
            wrong.append((row["schema"], again.canonical, normal.canonical))
    assert wrong == []


def test_the_table_has_schemas_that_java_accepts_and_schemas_that_it_rejects():
    assert (len(ACCEPTED), len(REJECTED)) == (491, 627)


@pytest.mark.parametrize(
    ("schema", "problem"),
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
def test_a_problem_names_what_java_rejects(schema, problem):
    assert parse("AVRO", json.dumps(schema), {}).problems == (problem,)
