"""Stored schemas and their references."""

from __future__ import annotations

import pytest

from tieline.registry.model.events import Reference
from tieline.registry.model.stored_schema import (
    MAX_DEPTH,
    MAX_REFERENCES,
    inline_references,
    parse_stored_schema,
    resolve_references,
)


def create_references(**schemas):
    """Return references by name, a function that fetches one, and the list of what it has fetched."""
    references = {name: Reference(name, f"s-{name}", 1) for name in schemas}
    fetched = []

    def fetch(reference):
        fetched.append(reference.name)
        return f'"{reference.name}"', [references[inner] for inner in schemas[reference.name]]

    return references, fetch, fetched


def test_each_reference_follows_its_own_references_and_is_fetched_once():
    references, fetch, fetched = create_references(
        top=["left", "right"], left=["base"], right=["base"], base=[]
    )
    texts = resolve_references([references["top"], references["base"]], fetch)
    assert list(texts) == ["base", "left", "right", "top"]
    assert sorted(fetched) == ["base", "left", "right", "top"]


@pytest.mark.parametrize("schemas", [{"a": ["a"]}, {"a": ["b"], "b": ["c"], "c": ["a"]}])
def test_cyclic_references_are_rejected(schemas):
    references, fetch, _ = create_references(**schemas)
    with pytest.raises(ValueError, match="refers to itself, through 'a'"):
        resolve_references([references["a"]], fetch)


def test_references_are_limited_in_depth_number_and_length():
    def deeper(reference):
        return "x", [Reference(reference.name + "x", "s", reference.version + 1)]

    with pytest.raises(ValueError, match=f"{MAX_DEPTH} levels"):
        resolve_references([Reference("x", "s", 1)], deeper)
    with pytest.raises(ValueError, match=f"more than {MAX_REFERENCES} schemas"):
        resolve_references(
            [Reference(str(n), "s", 1) for n in range(MAX_REFERENCES + 1)], lambda _: ("x", [])
        )
    with pytest.raises(ValueError, match="characters"):
        resolve_references([Reference(str(n), "s", 1) for n in range(9)], lambda _: ("x" * 500_000, []))


@pytest.mark.parametrize("text", ["7", "[]", "null", '{"type":"record","fields":7,"name":"R"}', "{"])
def test_a_reference_that_is_not_a_named_schema_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"Avro schema|Expecting"):
        inline_references('{"type":"record","name":"T","fields":[{"name":"f","type":"R"}]}', {"R": text})


def test_a_schema_of_another_kind_is_rejected_with_the_fix():
    with pytest.raises(ValueError, match=r"JSON Schema \(schemaType JSON\).*Set value.converter"):
        parse_stored_schema(5, "JSON", "{}")
