import pytest

from tieline.registry.model.events import Reference
from tieline.registry.model.stored_schema import (
    MAX_DEPTH,
    MAX_REFERENCES,
    inline_references,
    parse_stored_schema,
    resolve_references,
)


def given(**schemas):
    """References by name to the text of each, and to what each refers to."""
    made = {name: Reference(name, f"s-{name}", 1) for name in schemas}
    asked = []

    def version(reference):
        asked.append(reference.name)
        return f'"{reference.name}"', [made[inner] for inner in schemas[reference.name]]

    return made, version, asked


def test_what_others_need_comes_first_and_is_asked_for_once():
    made, version, asked = given(top=["left", "right"], left=["base"], right=["base"], base=[])
    assert list(resolve_references([made["top"], made["base"]], version)) == ["base", "left", "right", "top"]
    assert sorted(asked) == ["base", "left", "right", "top"]


@pytest.mark.parametrize("schemas", [{"a": ["a"]}, {"a": ["b"], "b": ["c"], "c": ["a"]}])
def test_references_in_a_circle_are_refused(schemas):
    made, version, _ = given(**schemas)
    with pytest.raises(ValueError, match="refers to itself, through 'a'"):
        resolve_references([made["a"]], version)


def test_references_without_end_are_refused_in_depth_and_number():
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
def test_a_reference_that_is_no_named_schema_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"Avro schema|Expecting"):
        inline_references('{"type":"record","name":"T","fields":[{"name":"f","type":"R"}]}', {"R": text})


def test_another_kind_of_schema_is_named_with_what_to_do():
    with pytest.raises(ValueError, match=r"JSON Schema \(schemaType JSON\).*Set value.converter"):
        parse_stored_schema(5, "JSON", "{}")
