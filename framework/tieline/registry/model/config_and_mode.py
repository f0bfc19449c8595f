"""The configuration and the mode of a subject, or of all: what may be set, and what is answered.

Pure, like ``rules``. A ``subject`` of none means all subjects without a setting of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tieline.registry.model import errors
from tieline.registry.model.compatibility import LEVELS
from tieline.registry.model.events import MODES, ConfigSet, ModeSet
from tieline.registry.model.rules import Decision
from tieline.registry.model.state import Subjects

_SETTABLE = {"compatibility", "normalize"}


def config(state: Subjects, subject: str | None, *, default_to_global: bool = False) -> dict[str, Any]:
    """The configuration, in the words of a GET. Raises ``RegistryError`` (40408)."""
    own = state.configs.get(subject)
    if own is None and subject is not None and not default_to_global:
        raise errors.config_not_set(subject)
    fields = dict(own or state.configs.get(None, {}))
    fields.setdefault("compatibilityLevel", state.level(subject or ""))
    return fields


def set_config(state: Subjects, subject: str | None, asked: Mapping[str, Any]) -> Decision:
    """``compatibility`` and ``normalize``; what is not asked for stays. Answers what was asked for."""
    _check_writable(state, subject)
    asked = {name: value for name, value in asked.items() if value is not None}
    unknown = sorted(asked.keys() - _SETTABLE)
    if unknown:
        known = ", ".join(sorted(_SETTABLE))
        raise errors.unprocessable(f"not supported by this registry: {', '.join(unknown)}; it takes {known}")
    fields = dict(state.configs.get(subject, {}))
    answer: dict[str, Any] = {}
    if "compatibility" in asked:
        level = str(asked["compatibility"]).upper()
        if level not in LEVELS:
            raise errors.invalid_level(tuple(LEVELS))
        fields["compatibilityLevel"] = answer["compatibility"] = level
    if "normalize" in asked:
        if not isinstance(asked["normalize"], bool):
            raise errors.unprocessable("normalize is true or false")
        fields["normalize"] = answer["normalize"] = asked["normalize"]
    if not answer:
        raise errors.invalid_level(tuple(LEVELS))
    changed = fields != state.configs.get(subject)
    return Decision(answer, [ConfigSet(subject, fields)] if changed else [])


def delete_config(state: Subjects, subject: str | None) -> Decision:
    """Back to what holds for all, or (none) to the default. Answers what was set. Raises 40408."""
    _check_writable(state, subject)
    before = config(state, subject)
    return Decision(before, [ConfigSet(subject)] if subject in state.configs else [])


def mode(state: Subjects, subject: str | None, *, default_to_global: bool = False) -> dict[str, str]:
    """The mode. Raises ``RegistryError`` (40409)."""
    if subject is not None and subject not in state.modes and not default_to_global:
        raise errors.mode_not_set(subject)
    return {"mode": state.mode(subject)}


def set_mode(state: Subjects, subject: str | None, asked: Any, *, force: bool = False) -> Decision:
    """Answers the mode. IMPORT only where nothing is registered yet, unless ``force``."""
    name = str(asked).upper()
    if name not in MODES:
        raise errors.invalid_mode(MODES)
    if name == "IMPORT" and state.mode(subject) != "IMPORT" and not force:
        scope = state.names() if subject is None else [subject]
        if any(state.has(each) for each in scope):
            raise errors.not_permitted("Cannot import since found existing subjects")
    changed = state.modes.get(subject) != name
    return Decision({"mode": name}, [ModeSet(subject, name)] if changed else [])


def delete_mode(state: Subjects, subject: str | None) -> Decision:
    """Back to what holds for all, or (none) to READWRITE. Answers what was set. Raises 40409."""
    before = mode(state, subject)
    return Decision(before, [ModeSet(subject, None)] if subject in state.modes else [])


def _check_writable(state: Subjects, subject: str | None) -> None:
    if state.mode(subject) in ("READONLY", "READONLY_OVERRIDE"):
        of = f"Subject {subject}" if subject else "The registry"
        raise errors.not_permitted(f"{of} is in read-only mode")
