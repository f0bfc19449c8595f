"""Typed configuration over the flat map of strings that files and REST carry.

    class FileSourceConfig(Config):
        file: str = setting("file", doc="The file to read.")
        batch: int = setting("batch.size", 2000, doc="Lines a poll at most.", ge=1)

Every mistake of a map is reported at once; a secret (``Secret``) never appears in what is printed.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, cast, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typing_extensions import Self

from tieline.api.errors import ConfigError, Mistake

Secret = SecretStr
"""The type of a setting that must never be printed; ``.get_secret_value()`` gives the text."""


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)
    return value


CommaList = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""A list written as Kafka Connect writes lists: ``a, b, c``."""


def setting(key: str, default: Any = ..., *, doc: str, importance: str = "medium", **rules: Any) -> Any:
    """One setting: its key in the flat map, its default (none given: required), its meaning.

    ``rules`` are pydantic's (``ge``, ``le``, ``pattern``, …).
    """
    return Field(default, alias=key, description=doc, json_schema_extra={"importance": importance}, **rules)


class Config(BaseModel):
    """A set of settings. Subclass it, give each setting with :func:`setting`.

    Override ``mistakes`` for rules between settings; return them all instead of raising the first.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
    )

    def mistakes(self) -> list[tuple[str, str]]:
        """``(key, what is wrong and the way out)`` for rules that one setting alone cannot show."""
        return []

    @classmethod
    def parse(cls, settings: Mapping[str, str], where: str = "", *, also_known: Sequence[str] = ()) -> Self:
        """Read a flat map. Raises :class:`ConfigError` with every mistake, never with a value in it.

        ``also_known``: keys that somebody else reads, for the hint at a misspelt one.
        """
        try:
            config = cls.model_validate(dict(settings))
        except ValidationError as error:
            wrong = [_mistake(cls, where, line, also_known) for line in error.errors()]
            keys = {str(line["loc"][0]) for line in error.errors() if line["loc"]}
            rules = _rules_of_the_rest(cls, settings, keys)
            raise ConfigError([*wrong, *(Mistake(where, *rule) for rule in rules)]) from None
        wrong = [Mistake(where, key, message) for key, message in config.mistakes()]
        if wrong:
            raise ConfigError(wrong)
        return config

    @classmethod
    def keys(cls) -> list[str]:
        """The keys of this configuration, in the order of their definition."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def definition(cls) -> list[dict[str, Any]]:
        """Kafka Connect's ConfigDef, a dictionary a setting (``GET /connector-plugins/…/config``)."""
        return [
            {
                "name": field.alias or name,
                "type": _config_def_type(field.annotation),
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
            for order, (name, field) in enumerate(cls.model_fields.items(), start=1)
        ]


def _mistake(cls: type[Config], where: str, line: Any, also_known: Sequence[str]) -> Mistake:
    key = ".".join(str(part) for part in line["loc"])
    if line["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, [*cls.keys(), *also_known], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(cls.keys())}"
        return Mistake(where, key, f"no such setting; {hint}")
    if line["type"] == "missing":
        doc = next((f.description for f in cls.model_fields.values() if f.alias == key), "")
        return Mistake(where, key, f"is required: {doc}")
    return Mistake(where, key, str(line["msg"]))


def _rules_of_the_rest(
    cls: type[Config], settings: Mapping[str, str], wrong: Collection[str]
) -> list[tuple[str, str]]:
    """What the rules say of the other settings; nothing where they ask for one that is itself wrong."""
    draft = cls.model_construct()
    for name, field in cls.model_fields.items():
        key = field.alias or name
        if key in wrong:
            draft.__dict__.pop(name, None)
        elif key in settings:
            kind: Any = Annotated[(field.annotation, name, *field.metadata)]
            draft.__dict__[name] = TypeAdapter(kind).validate_python(settings[key])
    try:
        return draft.mistakes()
    except AttributeError:
        return []


_TYPES = {bool: "BOOLEAN", int: "LONG", float: "DOUBLE", SecretStr: "PASSWORD"}


def _config_def_type(annotation: Any) -> str:
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
