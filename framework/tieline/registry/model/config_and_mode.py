"""The configuration and the mode of one subject or of all: what may be set, and what is answered.

Pure, like ``rules``. The subject ``None`` stands for all subjects without a setting of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tieline.registry.model import errors
from tieline.registry.model.compatibility import LEVELS
from tieline.registry.model.events import MODES, ConfigSet, ModeSet
from tieline.registry.model.rules import Decision, check_writable
from tieline.registry.model.state import Subjects

_SETTABLE = {"compatibility", "normalize"}


def config(state: Subjects, subject: str | None, *, default_to_global: bool = False) -> dict[str, Any]:
    """Return the configuration as a GET answers it. Raises ``RegistryError`` (40408)."""
    fields = state.configs.get(subject)
    if fields is None and subject is not None and not default_to_global:
        raise errors.config_not_set(subject)
    answer = dict(fields or state.configs.get(None, {}))
    answer.setdefault("compatibilityLevel", state.level(subject or ""))
    return answer


def set_config(state: Subjects, subject: str | None, changes: Mapping[str, Any]) -> Decision:
    """Set ``compatibility`` and ``normalize``, and answer what was set. Other fields keep their values.

    Raises ``RegistryError``.
    """
    check_writable(state, subject)
    changes = {name: value for name, value in changes.items() if value is not None}
    unknown = sorted(changes.keys() - _SETTABLE)
    if unknown:
        known = ", ".join(sorted(_SETTABLE))
        raise errors.unprocessable(
            f"this registry does not support {', '.join(unknown)}; only {known} can be set"
        )
    fields = dict(state.configs.get(subject, {}))
    answer: dict[str, Any] = {}
    if "compatibility" in changes:
        level = str(changes["compatibility"]).upper()
        if level not in LEVELS:
            raise errors.invalid_level(tuple(LEVELS))
        fields["compatibilityLevel"] = answer["compatibility"] = level
    if "normalize" in changes:
        if not isinstance(changes["normalize"], bool):
            raise errors.unprocessable("normalize must be true or false")
        fields["normalize"] = answer["normalize"] = changes["normalize"]
    if not answer:
        raise errors.invalid_level(tuple(LEVELS))
    is_changed = fields != state.configs.get(subject)
    return Decision(answer, [ConfigSet(subject, fields)] if is_changed else [])


def delete_config(state: Subjects, subject: str | None) -> Decision:
    """Delete a configuration, so that the global one or the default applies. Answers the deleted one.

    Raises ``RegistryError`` (40408).
    """
    check_writable(state, subject)
    before = config(state, subject)
    return Decision(before, [ConfigSet(subject)] if subject in state.configs else [])


def mode(state: Subjects, subject: str | None, *, default_to_global: bool = False) -> dict[str, str]:
    """Return the mode as a GET answers it. Raises ``RegistryError`` (40409)."""
    if subject is not None and subject not in state.modes and not default_to_global:
        raise errors.mode_not_set(subject)
    return {"mode": state.mode(subject)}


def set_mode(state: Subjects, subject: str | None, mode: Any, *, force: bool = False) -> Decision:
    """Set and answer the mode. IMPORT requires that nothing is registered yet, or ``force``.

    Raises ``RegistryError``.
    """
    name = str(mode).upper()
    if name not in MODES:
        raise errors.invalid_mode(MODES)
    if name == "IMPORT" and state.mode(subject) != "IMPORT" and not force:
        subjects = state.names() if subject is None else [subject]
        if any(state.has(each) for each in subjects):
            raise errors.not_permitted("Cannot import since found existing subjects")
    is_changed = state.modes.get(subject) != name
    return Decision({"mode": name}, [ModeSet(subject, name)] if is_changed else [])


def delete_mode(state: Subjects, subject: str | None) -> Decision:
    """Delete a mode, so that the global one or READWRITE applies. Answers the deleted one.

    Raises ``RegistryError`` (40409).
    """
    before = mode(state, subject)
    return Decision(before, [ModeSet(subject, None)] if subject in state.modes else [])
