"""Schemas for Avro Java to parse and write: ``python cases.py`` prints a line of JSON for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def record(*fields: Any, name: str = "R", **attributes: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, **attributes, "fields": list(fields)}


def field(kind: Any, name: str = "f", **attributes: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **attributes}


def fixed(name: str = "F", size: Any = 2, **attributes: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size, **attributes}


def enum(*symbols: Any, name: str = "E", **attributes: Any) -> dict[str, Any]:
    return {"type": "enum", "name": name, "symbols": list(symbols), **attributes}


def of(kind: Any, **attributes: Any) -> dict[str, Any]:
    return {"type": kind, **attributes}


def array(items: Any, **attributes: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **attributes}


def map_(values: Any, **attributes: Any) -> dict[str, Any]:
    return {"type": "map", "values": values, **attributes}


PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
LOGICAL = [
    of("int", logicalType="date"),
    of("long", logicalType="timestamp-millis"),
    of("string", logicalType="date"),
    of("string", logicalType="uuid"),
    of("bytes", logicalType="decimal", precision=5, scale=2),
    of("bytes", logicalType="decimal", precision=5),
    of("bytes", scale=2, precision=5, logicalType="decimal"),
    of("bytes", logicalType="decimal", precision=5, scale=8),
    of("bytes", logicalType="decimal"),
    of("bytes", logicalType="decimal", precision="5"),
    of("bytes", logicalType="decimal", precision=0),
    of("long", logicalType="made-up"),
    of("long", logicalType=7),
    of("string", **{"avro.java.string": "String"}),
    fixed(name="D", size=12, logicalType="duration"),
    fixed(name="D", size=2, logicalType="decimal", precision=30, scale=1),
    array("int", logicalType="set"),
    array("int", **{"java-class": "java.util.List"}),
    map_("int", x=1),
]
NUMBERS = (
    *("0", "-0", "1", "2147483647", "2147483648", "3000000000", "9223372036854775807", "9223372036854775808"),
    *(
        "1" + "0" * 30,
        "0.0",
        "-0.0",
        "1.0",
        "1.50",
        "100.0",
        "1e3",
        "1E3",
        "1e7",
        "1e-3",
        "0.001",
        "9.999e-4",
    ),
    *("1234567.0", "12345678.0", "1e16", "1.7976931348623157e308", "1e400", "0.1"),
    *("123456789012345678901234567890.5", "3.4028235e38", "2.5e-10", "1.0e10"),
)
TEXTS = [
    "",
    "plain",
    'q"uote',
    "back\\slash",
    "a/b",
    "line\nbreak\ttab\r\b\f",
    "\u0001\u001f\u007f",
    "é ☃ 𝄞",
    "<&>'",
]
NAMES = (
    *(
        "a-b",
        "1a",
        "",
        " ",
        "a b",
        "ä",
        "é_1",
        "_",
        "__x",
        "$",
        "a$b",
        "a.b",
        ".a",
        "a.",
        "a..b",
        "a\n",
        "A9",
    ),
    *("int", "record", "null", "string", "array", "名", "a²", "a٣", "con", "x" * 300),
)


def canonical() -> Iterator[Any]:
    yield from PRIMITIVES
    yield from ([of(kind) for kind in PRIMITIVES])
    yield from ([of(kind, doc="d", x=1, name="n", namespace="a") for kind in ("int", "string")])
    yield from (record(field(kind)) for kind in [*PRIMITIVES, *map(of, PRIMITIVES)])
    yield from LOGICAL
    yield from (record(field(kind), name="a.L") for kind in LOGICAL)
    yield of(of("string"))
    yield of([of("string"), "null"])
    yield of(record(field("int")))
    yield of(of(of("int", logicalType="date")))
    yield record(field(of(of("string"))))
    yield record(field(of(record(field("int"), name="In"))))
    yield record(field(of(["null", "int"])))
    # Names and namespaces.
    yield record(name="c.x.R")
    yield record(name="R", namespace="c.x")
    yield record(name="c.x.R", namespace="other")
    yield record(name="R", namespace="")
    yield record(name=".R")
    yield record(name="c.x.R", namespace="")
    yield record(name="R", namespace=None)
    yield record(name="R", namespace=7)
    yield record(field(fixed()), name="c.x.R")
    yield record(field(fixed(namespace="c.x")), name="c.x.R")
    yield record(field(fixed(name="c.x.F")), name="c.x.R")
    yield record(field(fixed(name="c.y.F")), name="c.x.R")
    yield record(field(fixed(namespace="")), name="c.x.R")
    yield record(field(fixed(namespace="y")), name="R")
    yield record(field(fixed(), "a"), field("F", "b"), field("c.x.F", "c"), name="c.x.R")
    yield record(field(fixed(name="y.F"), "a"), field("y.F", "b"), name="c.x.R")
    yield record(field(fixed(namespace=""), "a"), field("F", "b"), name="c.x.R")
    yield record(
        field(fixed(namespace=""), "a"), field("F", "b"), field(fixed(), "c"), field("F", "d"), name="c.R"
    )
    yield record(field(record(field(fixed(name="y.F")), name="In"), "a"), field("y.F", "b"), name="c.x.R")
    yield record(field(record(field("R"), name="In"), "a"), name="c.x.R")
    yield record(field(record(field("c.x.R"), name="y.In"), "a"), name="c.x.R")
    yield record(field(record(field(record(field("int"), name="Deep")), name="y.In"), "a"), name="c.x.R")
    yield record(field(["null", "R"], default=None), name="c.x.R")
    yield record(field(array("R"), "a"), field(map_("c.x.R"), "b"), name="c.x.R")
    yield record(field(of("R")), name="c.x.R")
    yield record(field(of("R", x=1)), name="c.x.R")
    yield record(field(fixed(name="c.int"), "a"), field("c.int", "b"), name="c.R")
    yield record(field(fixed(name="c.int"), "a"), field("int", "b"), name="c.R")
    yield record(field(fixed(), "a"), field(fixed(), "b"))
    yield record(field(fixed(), "a"), field(fixed(size=3), "b"))
    yield record(field("Unknown"))
    yield record(field("Later", "a"), field(fixed(name="Later"), "b"))
    yield [fixed(name="a.F"), record(field("a.F"))]
    yield [record(field("int"), name="a.R"), "a.R"]
    # Order of the keys, doc, aliases, unknown properties.
    yield {"fields": [], "name": "R", "type": "record"}
    yield {"doc": "d", "fields": [], "namespace": "n", "name": "R", "type": "record", "aliases": ["A"]}
    yield {"z": 1, "type": "record", "a": {"y": 1, "b": [1, 2.50, None]}, "name": "R", "fields": [], "m": "t"}
    yield {
        "type": "record",
        "fields": [{"z": 1, "type": "int", "a": 2, "default": 1, "name": "f", "doc": "d"}],
        "name": "R",
    }
    yield {
        "symbols": ["A", "B"],
        "z": 1,
        "name": "E",
        "default": "A",
        "doc": "d",
        "aliases": ["x"],
        "type": "enum",
    }
    yield {"size": 2, "z": 1, "name": "F", "doc": "d", "aliases": ["x", "a.y"], "type": "fixed"}
    yield {"items": "int", "z": 1, "default": [], "doc": "d", "type": "array", "name": "n"}
    yield {"values": "int", "z": 1, "default": {}, "doc": "d", "type": "map", "aliases": ["x"]}
    yield record(aliases=["A", "n.B", "A"], name="n.R")
    yield record(aliases=["A", "n.B", "m.C"], name="n.R")
    yield record(aliases=["A"], name="R")
    yield record(aliases=["x.A"], name="R")
    yield record(aliases=[".A"], name="n.R")
    yield record(aliases=[], name="R")
    yield record(aliases="A", name="R")
    yield record(aliases=[7], name="R")
    yield record(field("int", aliases=["a", "b", "a"]), field("int", "g", aliases=[]))
    yield record(field("int", aliases="a"))
    yield record(field("int", aliases=["a-b"]))
    yield record(aliases=["a-b", "1"], name="R")
    yield from (
        record(field("int", order=order))
        for order in ("ascending", "descending", "ignore", "IGNORE", "no", 7)
    )
    yield from (record(doc=doc) for doc in (None, "", 7, ["d"]))
    yield from (record(field("int", doc=doc)) for doc in (None, "", 7))
    yield from (enum("A", doc=doc) for doc in (None, ""))
    yield record(field("int", logicalType="date"))
    yield record(field("int", **{"avro.java.string": "String"}))
    yield record(field("int", x=None))
    yield record(x=None)
    yield {"type": "error", "name": "R", "fields": []}
    yield from (record(doc=text, x=text) for text in TEXTS)
    yield from (record(field("string", default=text)) for text in TEXTS)
    # Enums, fixed, unions.
    yield enum()
    yield enum("A", "B", default="B")
    yield enum("A", "B", default="C")
    yield enum("A", "B", default=7)
    yield enum("A", "A")
    yield enum("A", 7)
    yield {"type": "enum", "name": "E"}
    yield {"type": "enum", "name": "E", "symbols": "A"}
    yield from (fixed(size=size) for size in (0, 1, -1, 2**31 - 1, 2**31, "2", 2.0, 2.5, True, None))
    yield {"type": "fixed", "name": "F"}
    yield []
    yield ["int"]
    yield ["null", "int", "string"]
    yield ["int", "int"]
    yield ["int", of("int", logicalType="date")]
    yield ["null", ["int"]]
    yield [array("int"), array("long")]
    yield [map_("int"), array("long")]
    yield [fixed(name="a.F"), fixed(name="b.F")]
    yield [fixed(), fixed()]
    yield [of("int"), "string"]
    yield array(["null", array("int")])
    yield {"type": "array"}
    yield {"type": "map"}
    yield {"type": "record", "name": "R"}
    yield {"type": "record", "fields": []}
    yield {"type": "record", "name": "R", "fields": {}}
    yield {"type": "record", "name": "R", "fields": [7]}
    yield {"type": "record", "name": "R", "fields": [{"type": "int"}]}
    yield {"type": "record", "name": "R", "fields": [{"name": "f"}]}
    yield {"type": "record", "name": "R", "fields": [{"name": 7, "type": "int"}]}
    yield record(field("int"), field("long"))
    yield {}
    yield 7
    yield None
    yield True
    yield {"type": None}
    yield {"type": 7}
    yield {"type": "nonsense"}
    yield {"name": "R", "fields": []}


def names() -> Iterator[Any]:
    """Of everything that has one."""
    for name in NAMES:
        yield record(name=name)
        yield record(field("int", name))
        yield record(namespace=name)
        yield record(namespace=f"com.{name}.plant")
        yield enum(name)
        yield record(aliases=[name])
        yield record(field(fixed(name=name), "a"), field(name, "b"), name="c.R")


def defaults() -> Iterator[Any]:
    """Right and wrong ones."""
    pair = record(field("int", "a"), field("string", "b", default="x"), name="P")
    kinds: list[Any] = [
        *PRIMITIVES,
        *(enum("A", "B"), fixed(), array("int"), map_("long"), pair, ["null", "int"], ["int", "null"]),
        *(["string", "null", "int"], array(["null", "int"]), of("int", logicalType="date")),
    ]
    values: list[Any] = [
        None,
        True,
        0,
        2**31 - 1,
        2**31,
        -(2**31),
        3_000_000_000,
        2**63,
        1.5,
        1.0,
        1e300,
        "",
        "A",
        "x",
    ]
    values += [
        "ab",
        "abc",
        "é",
        "☃",
        "1.5",
        "NaN",
        [],
        [1],
        ["a"],
        [None],
        {},
        {"a": 1},
        {"a": 1, "b": "y"},
        {"a": "x"},
    ]
    for kind in kinds:
        for value in values:
            yield record(field(kind, default=value))
    yield from (
        record(field(kind, default="1.5")) for kind in (["float", "null"], ["double"], ["null", "double"])
    )
    yield record(field(array("float"), default=["1.5"]))
    yield record(field(map_("double"), default={"a": "1.5"}))
    pair = record(field("float", "a", default="1.5"), field("double", "b"), name="P")
    yield from (
        record(field(pair, default=value)) for value in ({"b": 1}, {"a": 2, "b": 1}, {"a": "2", "b": 1})
    )
    for huge in (2**63, -(2**63), -(2**63) - 1):
        yield record(x=huge)
        yield from (
            {**definition, "x": huge}
            for definition in (enum("A"), fixed(), array("int"), map_("int"), of("int"))
        )
        yield record(field("int", x=huge))
        yield record(x=[huge])


def texts() -> Iterator[str]:
    """Where the form of the text itself matters."""
    for number in NUMBERS:
        yield f'{{"type":"record","name":"R","fields":[],"x":{number}}}'
        for kind in ("int", "long", "float", "double"):
            default = f'{{"name":"f","type":"{kind}","default":{number}}}'
            yield f'{{"type":"record","name":"R","fields":[{default}]}}'
    yield '  {"type" :\n"int"}  '
    yield '"int" trailing'
    yield '"int""int"'
    yield ""
    yield "int"
    yield "R"
    yield "'int'"
    yield '{"type":"record","name":"R","name":"S","fields":[]}'
    yield '{"type":"record","name":"R","fields":[],"x":1,"x":2}'
    yield '{"type":"record","name":"R","fields":[],"doc":"\\u00e9 \\u2603 \\ud834\\udd1e \\u0041 \\/"}'
    yield '{"type":"record","name":"R","fields":[],"x":NaN}'
    yield '{"type":"int",}'


REFERENCED: list[tuple[Any, list[Any]]] = [
    (record(field("lab.Unit")), [enum("C", name="lab.Unit")]),
    (record(field("Unit"), name="lab.R"), [enum("C", name="Unit", namespace="lab")]),
    (record(field("Unit"), name="lab.R"), [enum("C", name="Unit")]),
    (record(field("Unit"), name="lab.R"), [enum("C", name="Unit"), enum("D", name="lab.Unit")]),
    (
        record(field("lab.P", "a"), field("lab.Unit", "b")),
        [enum("C", name="lab.Unit"), record(field("Unit"), name="lab.P")],
    ),
    (record(field("lab.In")), [record(field(fixed(name="In")), name="lab.Out")]),
    (["lab.A", "lab.B"], [fixed(name="lab.A"), fixed(name="lab.B")]),
    (array("lab.A"), [fixed(name="lab.A")]),
    ("lab.A", [fixed(name="lab.A")]),
    (record(field(fixed(name="lab.A"))), [fixed(name="lab.A")]),
    (record(field("lab.A")), []),
]


def every() -> Iterator[dict[str, Any]]:
    for group in (canonical(), names(), defaults()):
        for schema in group:
            yield {"schema": json.dumps(schema, ensure_ascii=False)}
    for text in texts():
        yield {"schema": text}
    for schema, references in REFERENCED:
        yield {"schema": json.dumps(schema), "references": [json.dumps(each) for each in references]}


if __name__ == "__main__":
    for case in every():
        print(json.dumps(case))
