"""Describe settings as Kafka Connect's ConfigDef does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_TYPES = {bool: "BOOLEAN", int: "LONG", float: "DOUBLE", SecretStr: "PASSWORD"}


def config_def(fields: Mapping[str, FieldInfo]) -> list[dict[str, Any]]:
    """Return one dictionary for each setting, in the order of their definition."""
    return [
        {
            "name": field.alias or name,
            "type": _type_of(field.annotation),
            "required": field.is_required(),
            "default_value": _text_of(field),
            "importance": _importance(field),
            "documentation": field.description or "",
            "group": None,
            "order": order,
            "width": "NONE",
            "display_name": field.alias or name,
            "dependents": [],
        }
        for order, (name, field) in enumerate(fields.items(), start=1)
    ]


def _type_of(annotation: Any) -> str:
    if get_origin(annotation) in (tuple, list):
        return "LIST"
    for candidate in (annotation, *get_args(annotation)):
        if candidate in _TYPES:
            return _TYPES[candidate]
    return "STRING"


def _importance(field: FieldInfo) -> str:
    extra = cast("dict[str, Any]", field.json_schema_extra or {})
    return str(extra.get("importance", "medium")).upper()


def _text_of(field: FieldInfo) -> str | None:
    default = field.default
    if default is PydanticUndefined or default is None or isinstance(default, SecretStr):
        return None
    if isinstance(default, bool):
        return str(default).lower()
    return ",".join(default) if isinstance(default, tuple) else str(default)
