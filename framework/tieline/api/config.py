"""Typed configuration over the flat map of strings in files and REST.

    class FileSourceConfig(Config):
        file: str = setting("file", doc="The file to read.")
        batch: int = setting("batch.size", 2000, doc="Lines per poll.", ge=1)

Every problem of a map is reported at once. A secret (``Secret``) is never printed.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo
from typing_extensions import Self

from tieline.api.config_def import config_def
from tieline.api.errors import ConfigError, ConfigProblem

Secret = SecretStr
"""The type of a setting that must never be printed; ``.get_secret_value()`` gives the text."""


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)
    return value


CommaList = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""A list in the form of Kafka Connect: ``a, b, c``."""


def _expand(path: str) -> str:
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ValueError("there is no such home folder; write the full path")
    return expanded


PathText = Annotated[str, AfterValidator(_expand)]
"""A path as text; ``~`` is the home folder, as in every setting of type ``Path``."""

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def topic_name(name: str) -> str:
    """Return the name if it is legal. Raises ``ValueError`` with the rule and a suggestion."""
    if _TOPIC.fullmatch(name) and name not in (".", ".."):
        return name
    legal = re.sub("[^a-zA-Z0-9._-]", ".", name)
    hint = f"; perhaps {legal!r}?" if _TOPIC.fullmatch(legal) else ""
    raise ValueError(
        f"{name[:100]!r} cannot be the name of a topic: 1 to 249 of the letters a-z and A-Z, digits, '.', "
        f"'_' and '-'{hint}"
    )


def _topic_or_empty(name: str) -> str:
    return topic_name(name) if name else name


TopicName = Annotated[str, AfterValidator(_topic_or_empty)]
"""The name of a topic, legal on every broker; or empty if the setting may be empty."""

TopicNames = Annotated[CommaList, AfterValidator(lambda names: tuple(map(topic_name, names)))]
"""Names of topics, separated by commas."""

_LARGEST = 2**63 - 1
_LONGEST_MS = 100 * 366 * 86_400_000


class Unresolved(str):
    """A value that could not be resolved. The error is reported already; checks skip the value."""

    __slots__ = ()


def setting(key: str, default: Any = ..., *, doc: str, importance: str = "medium", **rules: Any) -> Any:
    """Define a setting: its key in the flat map, its default and its meaning.

    Without a default it is required. ``rules`` are pydantic's (``ge``, ``le``, ``pattern``, …).
    """
    return Field(default, alias=key, description=doc, json_schema_extra={"importance": importance}, **rules)


class Config(BaseModel):
    """A set of settings. Subclass it and define each setting with :func:`setting`.

    Override ``problems`` for rules between settings; return them all instead of raising the first.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        allow_inf_nan=False,
    )

    refused: ClassVar[Mapping[str, str]] = {}
    """Keys of other products that are rejected, with the reason and the fix.

    A key that ends with a dot stands for all keys with this prefix.
    """

    def problems(self) -> list[tuple[str, str]]:
        """Return ``(key, problem and fix)`` for each broken rule between settings."""
        return []

    @classmethod
    def parse(cls, settings: Mapping[str, str], where: str = "", *, also_known: Sequence[str] = ()) -> Self:
        """Read a flat map. Raises :class:`ConfigError` with every problem and without values.

        ``also_known`` are keys of other readers, which hints for misspelt keys include.
        """
        config, wrong = cls.check(settings, where, also_known=also_known)
        if wrong:
            raise ConfigError(wrong)
        return config

    @classmethod
    def check(
        cls, settings: Mapping[str, str], where: str = "", *, also_known: Sequence[str] = ()
    ) -> tuple[Self, list[ConfigProblem]]:
        """Return the settings and every problem, instead of raising as ``parse`` does.

        A wrong setting has its default; a wrong required setting is not an attribute.
        """
        lost = {key for key, value in settings.items() if isinstance(value, Unresolved)}
        given: dict[str, Any] = {key: value for key, value in settings.items() if key not in lost}
        wrong = [ConfigProblem(where, *problem) for problem in _impossible(cls, given)]
        bad = lost | {problem.key for problem in wrong}
        given = {key: value for key, value in given.items() if key not in bad}
        try:
            config = cls.model_validate(given)
        except ValidationError as error:
            lines = [line for line in error.errors() if not (line["type"] == "missing" and _key(line) in bad)]
            wrong += [_problem(cls, where, line, also_known) for line in lines]
            bad |= {_key(line) for line in error.errors()}
            config = _draft(cls, given, bad)
        rules = [ConfigProblem(where, *rule) for rule in _rules(config, bad)]
        return config, wrong + [rule for rule in rules if rule.key not in bad]

    @classmethod
    def keys(cls) -> list[str]:
        """Return the keys of this configuration in the order of their definition."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def definition(cls) -> list[dict[str, Any]]:
        """Return Kafka Connect's ConfigDef, one dictionary for each setting."""
        return config_def(cls.model_fields)


def _problem(cls: type[Config], where: str, line: Any, also_known: Sequence[str]) -> ConfigProblem:
    key = ".".join(str(part) for part in line["loc"])
    if line["type"] == "extra_forbidden":
        for refused, reason in cls.refused.items():
            if key == refused or (refused.endswith(".") and key.startswith(refused)):
                return ConfigProblem(where, key, f"is not supported: {reason}")
        near = difflib.get_close_matches(key, [*cls.keys(), *also_known], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(cls.keys())}"
        return ConfigProblem(where, key, f"no such setting; {hint}")
    if line["type"] == "missing":
        doc = next((f.description for f in cls.model_fields.values() if f.alias == key), "")
        return ConfigProblem(where, key, f"is required: {doc}")
    return ConfigProblem(where, key, str(line["msg"]).removeprefix("Value error, "))


def _key(line: Any) -> str:
    return str(line["loc"][0]) if line["loc"] else ""


def _impossible(cls: type[Config], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield values that no setting accepts; expand ``~`` in paths."""
    fields = {field.alias or name: field for name, field in cls.model_fields.items()}
    for key, value in list(settings.items()):
        kinds = (fields[key].annotation, *get_args(fields[key].annotation)) if key in fields else ()
        if isinstance(value, str) and "\0" in value:
            yield key, "contains a NUL character"
        elif Path in kinds and isinstance(value, str) and not value.strip():
            if type(None) in kinds:
                del settings[key]  # an empty path must not mean the current folder
            else:
                yield key, "is empty; give a path"
        elif Path in kinds and isinstance(value, str):
            try:
                settings[key] = _expand(value)
            except ValueError as error:
                yield key, str(error)
        elif int in kinds and isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
            # code behind a setting counts in 64 bits, and waits in seconds of a float
            longest = _LONGEST_MS if key.endswith(".ms") and key != "log.retention.ms" else _LARGEST
            if len(value) > 30 or not -_LARGEST <= int(value) <= longest:
                yield key, f"is too large; the limit is {longest}"


def _rules(config: Config, wrong: Collection[str]) -> list[tuple[str, str]]:
    """Return broken rules between settings that hold for any value of the wrong settings."""
    drafts = [config]
    for stand_in in (_low, _high) if wrong else ():
        draft = config.model_copy()
        for name, field in type(config).model_fields.items():
            if (field.alias or name) in wrong and name in draft.__dict__:
                draft.__dict__[name] = stand_in(field, draft.__dict__[name])
        drafts.append(draft)
    answers = []
    for draft in drafts:
        try:
            answers.append(list(draft.problems()))
        except Exception as error:  # noqa: BLE001 - an author's code; it may also have read a wrong setting
            answers.append([] if wrong else [("", f"cannot be checked: {type(error).__name__}: {error}")])
    return [rule for rule in answers[0] if all(rule in answer for answer in answers)]


def _low(field: FieldInfo, default: Any) -> Any:
    return _other(field, default, ("ge", "gt"), -(2**31))


def _high(field: FieldInfo, default: Any) -> Any:
    return _other(field, default, ("le", "lt"), 2**31)


def _other(field: FieldInfo, default: Any, limits: tuple[str, str], beyond: int) -> Any:
    """Return an extreme value that the setting could have."""
    kinds = (field.annotation, *get_args(field.annotation))
    if bool in kinds:
        return beyond > 0
    if int not in kinds and float not in kinds:
        return default
    bounds = [getattr(rule, limit) for rule in field.metadata for limit in limits if hasattr(rule, limit)]
    return bounds[0] if bounds else beyond


def _draft(cls: type[Config], settings: Mapping[str, Any], wrong: Collection[str]) -> Any:
    """Return a configuration with the valid settings, and defaults for the others."""
    for validator, decorator in cls.__pydantic_decorators__.model_validators.items():
        if decorator.info.mode == "before":  # it may gather several keys into one
            with suppress(ValueError):  # reported already
                settings = getattr(cls, validator)(settings)
    draft = cls.model_construct()
    for name, field in cls.model_fields.items():
        key = field.alias or name
        if key in settings and key not in wrong:
            kind: Any = Annotated[(field.annotation, name, *field.metadata)]
            draft.__dict__[name] = TypeAdapter(kind).validate_python(settings[key])
    return draft
