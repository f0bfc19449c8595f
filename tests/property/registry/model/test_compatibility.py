"""The verdict on two schemas against really reading with the one what the other wrote.

Compatible: fastavro reads every datum. Not compatible: it refuses one of many. And the verdict is that of
Apache avro's checker. (Its reader for Python is no judge: it knows neither aliases nor an enum's default.)
"""

from __future__ import annotations

import copy
import io
import json
import random
from typing import Any

import avro.schema
import fastavro
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tieline.registry.model.avro_schema import parse
from tieline.registry.model.compatibility import LEVELS, differences, incompatibilities

NUMBERS = ["int", "long", "float", "double"]
PRIMITIVES = ["null", "boolean", *NUMBERS, "string", "bytes"]
SYMBOLS = ["A", "B", "C", "D"]
DEFAULTS = {
    "null": None,
    "boolean": True,
    "int": 1,
    "long": 2,
    "float": 1.5,
    "double": 2.5,
    "string": "s",
    "bytes": "b",
}


class Maker:
    """Makes schemas, data and changes from one dice; every named type has a name of its own."""

    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.names = 0

    def name(self, kind):
        self.names += 1
        return f"{kind}{self.names}"

    def type(self, depth=2):
        kinds = ["primitive", "enum", "fixed", "union"] + ["array", "map", "record"] * (depth > 0)
        kind = self.dice.choice(kinds)
        if kind == "enum":
            symbols = self.dice.sample(SYMBOLS, self.dice.randint(1, 4))
            return {"type": "enum", "name": self.name("E"), "symbols": symbols}
        if kind == "fixed":
            return {"type": "fixed", "name": self.name("F"), "size": self.dice.randint(1, 3)}
        if kind == "union":
            return ["null", *self.dice.sample(["boolean", "long", "string"], self.dice.randint(1, 3))]
        if kind == "array":
            return {"type": "array", "items": self.type(depth - 1)}
        if kind == "map":
            return {"type": "map", "values": self.type(depth - 1)}
        return self.record(depth - 1) if kind == "record" else self.dice.choice(PRIMITIVES)

    def record(self, depth=2):
        fields = [{"name": f"f{n}", "type": self.type(depth)} for n in range(self.dice.randint(1, 3))]
        return {"type": "record", "name": self.name("R"), "fields": fields}

    def datum(self, schema):
        if isinstance(schema, list):
            return self.datum(self.dice.choice(schema))
        kind = schema if isinstance(schema, str) else schema["type"]
        if kind == "record":
            return {field["name"]: self.datum(field["type"]) for field in schema["fields"]}
        if kind == "enum":
            return self.dice.choice(schema["symbols"])
        if kind == "fixed":
            return self.dice.randbytes(schema["size"])
        if kind == "array":
            return [self.datum(schema["items"]) for _ in range(self.dice.randint(0, 3))]
        if kind == "map":
            return {f"k{n}": self.datum(schema["values"]) for n in range(self.dice.randint(0, 3))}
        # Where bytes are read as text, they have to be some: no schema can promise that.
        return {
            "null": None,
            "boolean": self.dice.random() < 0.5,
            "int": self.dice.randint(-9, 9),
            "long": self.dice.randint(-(2**40), 2**40),
            "float": 0.5,
            "double": 0.25,
            "string": "text",
            "bytes": b"raw",
        }[kind]

    def evolve(self, schema):
        """Another schema, one to three changes away."""
        changed = copy.deepcopy(schema)
        for _ in range(self.dice.randint(1, 3)):
            changed = self.change(changed)
        return changed

    def change(self, schema):
        if isinstance(schema, list):
            if self.dice.random() < 0.3:
                return self.dice.choice(schema)
            return list(dict.fromkeys([*schema, self.dice.choice(["boolean", "double", "string"])]))
        if isinstance(schema, str):
            near = NUMBERS if schema in NUMBERS else ["string", "bytes"]
            return self.dice.choice([*near, self.dice.choice(PRIMITIVES), self.optional(schema)])
        kind = schema["type"]
        if "name" in schema and self.dice.random() < 0.1:
            aliases = {"aliases": [schema["name"]]} if self.dice.random() < 0.5 else {}
            return {**schema, "name": self.name("N"), **aliases}
        if kind == "enum":
            change = self.dice.randint(0, 2)
            if change == 0:
                return {
                    **schema,
                    "symbols": list(dict.fromkeys([*schema["symbols"], self.dice.choice(SYMBOLS)])),
                }
            if change == 1:
                return {**schema, "symbols": schema["symbols"][:1], "default": schema["symbols"][0]}
            return {**schema, "symbols": schema["symbols"][:1]}
        if kind == "fixed":
            return {**schema, "size": self.dice.randint(1, 3)}
        if kind in ("array", "map"):
            part = "items" if kind == "array" else "values"
            return {**schema, part: self.change(schema[part])}
        return self.change_record(schema)

    def optional(self, schema):
        return schema if schema == "null" else ["null", schema]

    def change_record(self, record):
        fields = list(record["fields"])
        change = self.dice.choice(["type", "type", "drop", "add", "default", "rename", "alias", "shuffle"])
        at = self.dice.randrange(len(fields)) if fields else None
        if at is not None and change == "type":
            fields[at] = {"name": fields[at]["name"], "type": self.change(fields[at]["type"])}
        elif at is not None and change == "drop":
            del fields[at]
        elif at is not None and change in ("rename", "alias"):
            aliases = {"aliases": [fields[at]["name"]]} if change == "alias" else {}
            fields[at] = {**fields[at], "name": self.name("n"), **aliases}
        elif change == "shuffle":
            self.dice.shuffle(fields)
        else:
            new = self.dice.choice(PRIMITIVES)
            default = {"default": DEFAULTS[new]} if change == "default" else {}
            fields.append({"name": self.name("a"), "type": new, **default})
        return {**record, "fields": fields}


def written(schema, datum):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(copy.deepcopy(schema)), datum)
    return out.getvalue()


def read_by_fastavro(data, writer, reader):
    parsed: list[Any] = [fastavro.parse_schema(copy.deepcopy(schema)) for schema in (writer, reader)]
    return fastavro.schemaless_reader(io.BytesIO(data), parsed[0], parsed[1])


def apache_agrees(writer, reader, told):
    mine, theirs = (avro.schema.parse(json.dumps(schema)) for schema in (reader, writer))
    found = ReaderWriterCompatibilityChecker().get_compatibility(mine, theirs)
    return (found.compatibility is SchemaCompatibilityType.compatible) is not bool(told)


@given(seed=st.integers(0, 2**64))
def test_the_verdict_is_what_reading_shows(seed):
    maker = Maker(seed)
    writer = maker.record()
    reader = maker.evolve(writer)
    told = differences(parse("AVRO", json.dumps(reader), {}), parse("AVRO", json.dumps(writer), {}))
    assert apache_agrees(writer, reader, told)
    if not told:
        event("compatible")
        for _ in range(8):
            data = written(writer, maker.datum(writer))
            read_by_fastavro(data, writer, reader)
        return
    for _ in range(200):
        try:
            read_by_fastavro(written(writer, maker.datum(writer)), writer, reader)
        except Exception:
            event("not compatible, and a datum shows it")
            return
    event("not compatible, and no datum of 200 shows it")
    raise AssertionError(f"{told}\nwriter {json.dumps(writer)}\nreader {json.dumps(reader)}")


@pytest.mark.parametrize("level", LEVELS)
@given(seed=st.integers(0, 2**64))
@settings(max_examples=30)
def test_a_level_is_made_of_both_directions_and_of_the_versions_that_count(level, seed):
    maker = Maker(seed)
    first = maker.record()
    second = maker.evolve(first)
    third = maker.evolve(second)
    old = [parse("AVRO", json.dumps(schema), {}) for schema in (first, second)]
    new = parse("AVRO", json.dumps(third), {})
    counting = old if level.endswith("_TRANSITIVE") else old[-1:]
    wrong = []
    if level.startswith(("BACKWARD", "FULL")):
        wrong += [differences(new, each) for each in counting]
    if level.startswith(("FORWARD", "FULL")):
        wrong += [differences(each, new) for each in counting]
    assert bool(incompatibilities(level, new, old)) is any(wrong)


def test_what_only_a_branch_that_fails_would_make_readable_is_not_readable():
    """Apache avro's own checker takes this pair."""

    def schema(z, *more):
        q = {"type": "record", "name": "Q", "fields": [{"name": "p", "type": ["null", "P"]}]}
        fields = [{"name": "q", "type": q}, {"name": "z", "type": z}]
        branch: Any = {"type": "record", "name": "P", "fields": fields}
        one = [branch, *more] if more else branch
        top = [{"name": "one", "type": one}, {"name": "two", "type": "Q"}]
        return {"type": "record", "name": "Top", "fields": top}

    takes_all = {"type": "record", "name": "P2", "aliases": ["P"], "fields": []}
    reader, writer = (
        parse("AVRO", json.dumps(made), {}) for made in (schema("int", takes_all), schema("string"))
    )
    (told,) = differences(reader, writer)
    assert told.endswith(".z' is int here and string there")


def test_what_a_hostile_pair_costs_has_an_end():
    def fixed(letter, number):
        types = [{"type": "fixed", "name": f"{letter}{n}", "size": 1} for n in range(number)]
        return parse("AVRO", json.dumps(types), {})

    told = differences(fixed("A", 3000), fixed("B", 3000))
    assert 0 < len(told) <= 40
    assert sum(map(len, told)) < 20_000
