"""Render the reference page of message formats from the schemas' own documentation. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

_HEAD = """# Message formats
`tieline schemas docs` generates this page from the `doc` texts in [schemas](../../schemas/README.md).
"""


def render_page(schemas: Iterable[str]) -> str:
    """Return Markdown: a section for each schema, with a table of its fields and of each type inside it."""
    return "\n".join([_HEAD, *(_section(json.loads(text)) for text in schemas)])


def _section(schema: Mapping[str, Any]) -> str:
    namespace = str(schema.get("namespace", ""))
    inner: list[Mapping[str, Any]] = []
    lines = [f"## {_full_name(schema, namespace)}", _text(schema.get("doc", "")), "", *_table(schema, inner)]
    for named in inner:  # grows during the loop, by the types inside these types
        lines += [f"### {named['name']}", *filter(None, [_text(named.get("doc", ""))]), ""]
        if named["type"] == "enum":
            default = f"; read as `{named['default']}` where it is unknown" if "default" in named else ""
            lines += [f"One of {', '.join(f'`{symbol}`' for symbol in named['symbols'])}{default}.", ""]
        elif named["type"] == "record":
            lines += _table(named, inner)
    return "\n".join(lines)


def _table(record: Mapping[str, Any], inner: list[Mapping[str, Any]]) -> list[str]:
    lines = ["| Field | Type | Default | Meaning |", "|---|---|---|---|"]
    for field in record["fields"]:
        default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
        kind = _type(field["type"], inner)
        lines.append(f"| `{field['name']}` | {kind} | {default} | {_text(field.get('doc', ''))} |")
    return [*lines, ""]


def _type(kind: Any, inner: list[Mapping[str, Any]]) -> str:
    if isinstance(kind, str):
        return kind.rpartition(".")[2]
    if isinstance(kind, list):
        return " or ".join(_type(branch, inner) for branch in kind)
    if "logicalType" in kind:
        return f"{kind['logicalType']} ({kind['type']})"
    if kind["type"] == "array":
        return f"array of {_type(kind['items'], inner)}"
    if kind["type"] == "map":
        return f"map of {_type(kind['values'], inner)}"
    if "name" in kind:
        inner.append(kind)
        return str(kind["name"])
    return _type(kind["type"], inner)


def _full_name(schema: Mapping[str, Any], namespace: str) -> str:
    name = str(schema["name"])
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _text(doc: str) -> str:
    return " ".join(doc.split()).replace("|", "\\|").replace("<", "&lt;")
