"""The form of "set a point": from its fields to a command; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tieline_connectors.command.cli import parsing
from tieline_connectors.command.model.command import Action
from tieline_connectors.command.model.point import point_of
from tieline_connectors.command.policy.limits import format_value
from tieline_connectors.command.policy.rule import Rule

DEFAULT_TTL = "60s"
_MAX_TEXT = 1000


class SetForm(NamedTuple):
    """The fields as a person typed them."""

    point: str = ""
    action: Action = "SET"
    value: str = ""
    ttl: str = DEFAULT_TTL
    hold: str = ""
    priority: str = ""
    reason: str = ""
    command_id: str = ""

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> SetForm:
        """Return the form of a request's fields, the point in its canonical form if it has one.

        Raises ``ValueError`` about a field that is too long.
        """
        given = {name: fields[name].strip() for name in cls._fields if fields.get(name, "").strip()}
        for name, text in given.items():
            if len(text) > _MAX_TEXT:
                raise ValueError(f"{name} has more than {_MAX_TEXT} characters")
        if given.get("action", "SET") not in ("SET", "REVERT"):
            raise ValueError("action must be SET or REVERT")
        return cls(**given)._replace(point=canonical_point(given.get("point", "")))  # type: ignore[arg-type]

    def fields(self, issuer: str, platform: str, rule: Rule | None, now: int) -> dict[str, Any]:
        """Return the fields of ``command.Command``. Raises ``ValueError`` with the field and the fix.

        ``rule`` is the one that decides: it says whether a value is a text. ``now`` is in microseconds.
        """
        write: dict[str, Any] = {"point": point_of(self.point)}
        if self.action == "SET":
            if not self.value:
                raise ValueError("value: give the requested value")
            is_text = rule is not None and rule.type == "text"
            write["value"] = self.value if is_text else parsing.value_of(self.value)
        priority = None
        if self.priority:
            if not (self.priority.isascii() and self.priority.isdigit()):
                raise ValueError(f"priority: {self.priority!r} is not a number from 1 to 16")
            priority = int(self.priority)
        fields = {
            "action": self.action,
            "writes": [write],
            "expires_at": now + int(parsing.seconds_of(self.ttl, "expires after") * 1_000_000),
            "hold_ms": int(parsing.seconds_of(self.hold, "hold") * 1000) if self.hold else None,
            "priority": priority,
            "reason": self.reason or None,
            "platform": platform,
        }
        return parsing.complete(fields, command_id=self.command_id, issuer=issuer, now=now)


class ReleaseForm(NamedTuple):
    """The release of a hold: all of its points are reverted."""

    points: Sequence[str]
    reason: str
    command_id: str

    def fields(self, issuer: str, platform: str, now: int) -> dict[str, Any]:
        """Return the fields of ``command.Command``. ``now`` is in microseconds."""
        fields = {
            "action": "REVERT",
            "writes": [{"point": point} for point in self.points],
            "expires_at": now + int(parsing.seconds_of(DEFAULT_TTL, "expires after") * 1_000_000),
            "reason": self.reason,
            "platform": platform,
        }
        return parsing.complete(fields, command_id=self.command_id, issuer=issuer, now=now)


def canonical_point(text: str) -> str:
    """Return the point that the policy and the sink see; the text itself if it is not a point."""
    try:
        return point_of(text)
    except ValueError:
        return text


def limits_of(rule: Rule | None) -> list[str]:
    """Return what a rule asks for, as sentences for the person at the form."""
    if rule is None:
        return ["No rule of the policy lets you write this point."]
    if rule.deny is not None:
        return [f"The policy forbids it: {rule.deny}."]
    return [*_value_limits(rule), *_time_limits(rule), *_formalities(rule)]


def _value_limits(rule: Rule) -> Iterator[str]:
    if rule.values is not None:
        yield "Allowed values: " + ", ".join(format_value(value) for value in rule.values) + "."
    elif rule.min is not None and rule.max is not None:
        yield f"From {format_value(rule.min)} to {format_value(rule.max)}."
    if rule.step is not None:
        yield f"In steps of {format_value(rule.step)}."
    if rule.max_length is not None:
        yield f"At most {rule.max_length} characters."


def _time_limits(rule: Rule) -> Iterator[str]:
    if rule.max_change is not None and rule.max_change_minutes is not None:
        minutes = format_value(rule.max_change_minutes)
        yield f"It may change by {format_value(rule.max_change)} within {minutes} minutes."
    if rule.dwell_minutes is not None:
        yield f"It rests {format_value(rule.dwell_minutes)} minutes between two writes."
    if rule.max_hold_minutes is not None:
        required = "A hold is required" if rule.hold_required else "A hold is possible"
        yield f"{required}, for {format_value(rule.max_hold_minutes)} minutes at most."


def _formalities(rule: Rule) -> Iterator[str]:
    if rule.reason_required:
        yield "A reason is required."
    if rule.key is not None:
        yield f"Commands must be signed with the key {rule.key}: use tieline command send --sign-with."
    if rule.confirmation:
        yield "The point is protected: you confirm it by its name."
