"""The verdict on two schemas agrees with actually reading data that one wrote with the other.

If they are compatible, fastavro reads every datum; if not, it rejects one of many. The verdict also equals
that of Apache Avro's checker. Apache Avro's reader for Python is not used: it supports neither aliases nor
defaults of enums.
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
    """Generates schemas, data and changes from a seed. Every named type has its own name."""

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
        # Bytes may be read as a string, so they must be valid text; no schema can ensure that.
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
        """Return the schema after one to three changes."""
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
        index = self.dice.randrange(len(fields)) if fields else None
        if index is not None and change == "type":
            fields[index] = {"name": fields[index]["name"], "type": self.change(fields[index]["type"])}
        elif index is not None and change == "drop":
            del fields[index]
        elif index is not None and change in ("rename", "alias"):
            aliases = {"aliases": [fields[index]["name"]]} if change == "alias" else {}
            fields[index] = {**fields[index], "name": self.name("n"), **aliases}
        elif change == "shuffle":
            self.dice.shuffle(fields)
        else:
            new = self.dice.choice(PRIMITIVES)
            default = {"default": DEFAULTS[new]} if change == "default" else {}
            fields.append({"name": self.name("a"), "type": new, **default})
        return {**record, "fields": fields}


def write(schema, datum):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(copy.deepcopy(schema)), datum)
    return out.getvalue()


def read_by_fastavro(data, writer, reader):
    parsed: list[Any] = [fastavro.parse_schema(copy.deepcopy(schema)) for schema in (writer, reader)]
    return fastavro.schemaless_reader(io.BytesIO(data), parsed[0], parsed[1])


def apache_agrees(writer, reader, problems):
    reading, writing = (avro.schema.parse(json.dumps(schema)) for schema in (reader, writer))
    result = ReaderWriterCompatibilityChecker().get_compatibility(reading, writing)
    return (result.compatibility is SchemaCompatibilityType.compatible) is not bool(problems)


@given(seed=st.integers(0, 2**64))
def test_the_verdict_agrees_with_reading_the_data(seed):
    maker = Maker(seed)
    writer = maker.record()
    reader = maker.evolve(writer)
    problems = differences(parse("AVRO", json.dumps(reader), {}), parse("AVRO", json.dumps(writer), {}))
    assert apache_agrees(writer, reader, problems)
    if not problems:
        event("compatible")
        for _ in range(8):
            data = write(writer, maker.datum(writer))
            read_by_fastavro(data, writer, reader)
        return
    for _ in range(200):
        try:
            read_by_fastavro(write(writer, maker.datum(writer)), writer, reader)
        except Exception:  # noqa: BLE001  # fastavro raises many kinds
            event("not compatible, and a datum shows it")
            return
    event("not compatible, and no datum of 200 shows it")
    raise AssertionError(f"{problems}\nwriter {json.dumps(writer)}\nreader {json.dumps(reader)}")


@pytest.mark.parametrize("level", LEVELS)
@given(seed=st.integers(0, 2**64))
@settings(max_examples=30)
def test_each_level_checks_its_directions_and_versions(level, seed):
    maker = Maker(seed)
    first = maker.record()
    second = maker.evolve(first)
    third = maker.evolve(second)
    old = [parse("AVRO", json.dumps(schema), {}) for schema in (first, second)]
    new = parse("AVRO", json.dumps(third), {})
    counting = old if level.endswith("_TRANSITIVE") else old[-1:]
    expected = []
    if level.startswith(("BACKWARD", "FULL")):
        expected += [differences(new, each) for each in counting]
    if level.startswith(("FORWARD", "FULL")):
        expected += [differences(each, new) for each in counting]
    assert bool(incompatibilities(level, new, old)) is any(expected)


def test_a_type_is_not_readable_because_a_failing_branch_assumed_it():
    """Apache Avro's own checker accepts this pair."""

    def schema(z, *branches):
        q = {"type": "record", "name": "Q", "fields": [{"name": "p", "type": ["null", "P"]}]}
        fields = [{"name": "q", "type": q}, {"name": "z", "type": z}]
        branch: Any = {"type": "record", "name": "P", "fields": fields}
        first = [branch, *branches] if branches else branch
        top = [{"name": "one", "type": first}, {"name": "two", "type": "Q"}]
        return {"type": "record", "name": "Top", "fields": top}

    takes_all = {"type": "record", "name": "P2", "aliases": ["P"], "fields": []}
    reader, writer = (
        parse("AVRO", json.dumps(each), {}) for each in (schema("int", takes_all), schema("string"))
    )
    (message,) = differences(reader, writer)
    assert message.endswith(".z' is int here and string there")


def test_messages_about_a_hostile_pair_are_limited():
    def fixed(letter, number):
        types = [{"type": "fixed", "name": f"{letter}{n}", "size": 1} for n in range(number)]
        return parse("AVRO", json.dumps(types), {})

    messages = differences(fixed("A", 3000), fixed("B", 3000))
    assert 0 < len(messages) <= 40
    assert sum(map(len, messages)) < 20_000
