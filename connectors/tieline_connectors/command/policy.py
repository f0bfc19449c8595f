"""Who may write what, where, and how far; pure. Nothing is allowed that no rule allows.

The rules are read from the top: **the first rule that names the issuer, the point and the action
decides**, and all of its limits hold. `Policy.refusal` tells the first thing that is wrong in a sentence
for whoever runs the plant. The file's reference, with examples, is docs/command-policy.md.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)

from tieline_connectors.command.command import Action, Command, Value, Write
from tieline_connectors.command.ledger import Written
from tieline_connectors.command.patterns import matches_name, matches_point

_MINUTE = 60_000_000
_DAY_MINUTES = 1440.0
_TYPES: Mapping[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "text": (str,),
}
_AN: Mapping[str, str] = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "text": "a text",
}

Number = StrictInt | StrictFloat
Texts = Annotated[
    tuple[Annotated[StrictStr, Field(min_length=1, max_length=500)], ...],
    BeforeValidator(lambda found: (found,) if isinstance(found, str) else found),
    Field(min_length=1, max_length=1000),
]
Minutes = Annotated[Number, Field(gt=0, le=_DAY_MINUTES)]


class Refusal(NamedTuple):
    """Why a command is refused: the code for programs, the sentence for people, the point if it is one."""

    code: str
    sentence: str
    point: str = ""


class Reading(NamedTuple):
    """A value that the platform has just read; where it could not be read there is no `Reading`."""

    value: Value


class History(Protocol):
    """What was done before; `ledger.Ledger` is one."""

    def written(self, point: str, since: int) -> Sequence[Written]:
        """The writes of a point since then and the one before, newest first."""

    def starts(self, since: int, *, issuer: str = "", device: str = "") -> int:
        """How many commands were started after then: of all, of an issuer, or on a device."""


class NoHistory:
    """Nothing was ever written: for checking a command beside a running sink."""

    def written(self, point: str, since: int) -> Sequence[Written]:
        """Nothing."""
        return ()

    def starts(self, since: int, *, issuer: str = "", device: str = "") -> int:
        """None."""
        return 0


class Facts(NamedTuple):
    """What a policy looks at beside the command.

    ``readings``: what the points read now, none: nobody has looked yet (when the command has just come).
    ``signed_with``: the names of the keys whose signature it bears.
    """

    now: int
    history: History = NoHistory()
    readings: Mapping[str, Reading | None] | None = None
    signed_with: Collection[str] = ()


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Rate(_Part):
    """At most so many commands in any stretch of so many minutes."""

    commands: Annotated[StrictInt, Field(ge=1, le=1_000_000)]
    minutes: Minutes


class Limits(_Part):
    """How many commands may be started; counted from the ledger, so a restart does not forget them."""

    per_device: Rate | None = None
    per_issuer: Rate | None = None
    total: Rate | None = None


class Rule(_Part):
    """What some issuers may do with some points."""

    issuers: Texts
    points: Texts
    actions: Annotated[
        tuple[Literal["SET", "REVERT"], ...],
        BeforeValidator(lambda found: (found,) if isinstance(found, str) else found),
        Field(min_length=1),
    ] = ("SET", "REVERT")
    deny: Annotated[StrictStr, Field(min_length=1, max_length=200)] | None = None
    type: Literal["bool", "int", "float", "text"] | None = None
    min: Number | None = None
    max: Number | None = None
    step: Annotated[Number, Field(gt=0)] | None = None
    values: (
        Annotated[tuple[StrictBool | StrictInt | StrictFloat | StrictStr, ...], Field(min_length=1)] | None
    ) = None
    max_length: Annotated[StrictInt, Field(ge=1, le=1000)] | None = None
    max_change: Annotated[Number, Field(gt=0)] | None = None
    max_change_minutes: Minutes | None = None
    dwell_minutes: Minutes | None = None
    max_hold_minutes: Annotated[Number, Field(gt=0)] | None = None
    hold_required: StrictBool = False
    reason_required: StrictBool = False
    key: Annotated[StrictStr, Field(min_length=1, max_length=200)] | None = None
    highest_priority: Annotated[StrictInt, Field(ge=1, le=16)] | None = None

    def mistakes(self) -> list[tuple[str, str]]:
        """What no key alone can show: the key, and what is wrong with the way out."""
        if self.deny is not None:
            limits = self.model_fields_set - {"issuers", "points", "actions", "deny"}
            return [(key, "has no meaning beside deny: leave it out") for key in sorted(limits)]
        if "SET" not in self.actions:
            limits = self.model_fields_set & {
                *("type", "min", "max", "step", "values", "max_length", "max_change", "max_change_minutes"),
                *("max_hold_minutes", "hold_required"),
            }
            return [(key, "has no meaning without the action SET: leave it out") for key in sorted(limits)]
        return [*self._mistakes_of_type(), *self._mistakes_of_change()]

    def _mistakes_of_type(self) -> list[tuple[str, str]]:
        if self.type is None:
            return [("type", "is required with the action SET: bool, int, float or text")]
        found: list[tuple[str, str]] = []
        numeric = self.type in ("int", "float")
        if not numeric:
            keys = sorted(self.model_fields_set & {"min", "max", "step", "max_change", "max_change_minutes"})
            found += [(key, f"is for numbers, and the type is {self.type}") for key in keys]
        if self.type != "text" and self.max_length is not None:
            found.append(("max_length", f"is for texts, and the type is {self.type}"))
        if numeric and self.values is None and (self.min is None or self.max is None):
            found.append(("min", "and max are both required for a number (or values): say how far it may go"))
        if self.type == "text" and self.values is None and self.max_length is None:
            found.append(("values", "or max_length is required for a text: say what it may be"))
        if self.min is not None and self.max is not None and self.min > self.max:
            found.append(("min", "is greater than max"))
        numbers = {"min": self.min, "max": self.max, "step": self.step, "max_change": self.max_change}
        found += [
            (key, "is no finite number")
            for key, value in numbers.items()
            if value is not None and _odd(value)
        ]
        if any(not _is(self.type, value) for value in self.values or ()):
            found.append(("values", f"are not all of the type {self.type}"))
        if self.values is not None and self.step is not None:
            found.append(("step", "has no meaning beside values: leave it out"))
        return found

    def _mistakes_of_change(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        if (self.max_change is None) != (self.max_change_minutes is None):
            found.append(("max_change", "and max_change_minutes go together: so much in so many minutes"))
        if self.hold_required and self.max_hold_minutes is None:
            found.append(("max_hold_minutes", "is required with hold_required: say how long at most"))
        return found

    def names(self, issuer: str, point: str, action: Action) -> bool:
        """Whether this rule speaks of it."""
        return (
            action in self.actions
            and any(matches_name(pattern, issuer) for pattern in self.issuers)
            and any(matches_point(pattern, point) for pattern in self.points)
        )


class Policy(_Part):
    """The whole file; `policy_file.parse` makes one."""

    version: Literal[1]
    highest_priority: Annotated[StrictInt, Field(ge=1, le=16)] = 8
    limits: Limits = Limits()
    rules: Annotated[tuple[Rule, ...], Field(max_length=10_000)] = ()

    def refusal(self, command: Command, facts: Facts) -> Refusal | None:
        """Why this command may not be executed now, or none if it may. The first reason that is found.

        Every write is looked at before any is done. Signatures come first: who did not sign learns
        nothing about the limits.
        """
        decided: list[tuple[Write, int, Rule]] = []
        for write in command.writes:
            found = self._rule(command, write)
            if isinstance(found, Refusal):
                return found
            decided.append((write, *found))
        for write, number, rule in decided:
            if rule.key is not None and rule.key not in facts.signed_with:
                return Refusal(
                    "SIGNATURE", f"{write.point} needs a signature with the key {rule.key} (rule {number})"
                )
        for write, number, rule in decided:
            for check in (self._priority, _reason, _hold, _value, _dwell, _change):
                refusal = check(command, write, rule, facts)
                if refusal is not None:
                    told = f"{refusal.sentence} (rule {number})"
                    return Refusal(refusal.code, told, write.point)
        return self._too_many(command, facts)

    def _rule(self, command: Command, write: Write) -> tuple[int, Rule] | Refusal:
        """The first rule that speaks of a write, with its number from 1."""
        action = action_of(command, write)
        for number, rule in enumerate(self.rules, start=1):
            if rule.names(command.issuer, write.point, action):
                if rule.deny is not None:
                    told = f"{command.issuer} may not {action} {write.point}: {rule.deny} (rule {number})"
                    return Refusal("POLICY_DENIED", told, write.point)
                return number, rule
        told = f"no rule allows {command.issuer} to {action} {write.point}"
        return Refusal("NOT_ALLOWED", told, write.point)

    def _priority(self, command: Command, write: Write, rule: Rule, facts: Facts) -> Refusal | None:
        highest = rule.highest_priority if rule.highest_priority is not None else self.highest_priority
        if command.priority is None or command.priority >= highest:
            return None
        may = f"may be written at priority {highest} to 16 by {command.issuer}"
        told = f"{write.point} {may}, not {command.priority}"
        return Refusal("POLICY_PRIORITY", told)

    def _too_many(self, command: Command, facts: Facts) -> Refusal | None:
        limits = self.limits
        asked: list[tuple[Rate | None, str, dict[str, str]]] = [
            (limits.per_device, f"on {device}", {"device": device}) for device in sorted(command.devices)
        ]
        asked.append((limits.per_issuer, f"of {command.issuer}", {"issuer": command.issuer}))
        asked.append((limits.total, "in all", {}))
        for rate, told, of in asked:
            if rate is not None:
                since = facts.now - int(rate.minutes * _MINUTE)
                if facts.history.starts(since, **of) >= rate.commands:
                    most = f"at most {rate.commands} commands in {_text(rate.minutes)} minutes"
                    return Refusal("RATE_LIMIT", f"{most} {told} are allowed")
        return None


def action_of(command: Command, write: Write) -> Action:
    """SET with null gives a point back (BACnet's relinquish), and so needs what REVERT needs."""
    return "REVERT" if write.value is None else command.action


def _reason(command: Command, write: Write, rule: Rule, facts: Facts) -> Refusal | None:
    if rule.reason_required and not command.reason:
        return Refusal("POLICY_REASON", f"{write.point} is written only with a reason")
    return None


def _hold(command: Command, write: Write, rule: Rule, facts: Facts) -> Refusal | None:
    if rule.max_hold_minutes is None or write.value is None:
        return None
    longest = f"{_text(rule.max_hold_minutes)} minutes at most"
    if command.hold_ms is None:
        told = f"{write.point} is written only with a hold (hold_ms), {longest}"
        return Refusal("POLICY_HOLD", told) if rule.hold_required else None
    if command.hold_ms > rule.max_hold_minutes * 60_000:
        asked = _text(command.hold_ms / 60_000)
        return Refusal("POLICY_HOLD", f"{write.point} may be held {longest}, not {asked}")
    return None


def _value(command: Command, write: Write, rule: Rule, facts: Facts) -> Refusal | None:
    value = write.value
    if value is None or rule.type is None:
        return None
    if not _is(rule.type, value):
        return Refusal("POLICY_TYPE", f"{write.point} is {_AN[rule.type]}, not {_text(value)}")
    if rule.values is not None and not any(_equal(value, allowed) for allowed in rule.values):
        allowed = ", ".join(map(_text, rule.values))
        return Refusal(
            "POLICY_VALUES", f"{write.point} may be {allowed} for {command.issuer}, not {_text(value)}"
        )
    if isinstance(value, str):
        if rule.max_length is not None and len(value) > rule.max_length:
            return Refusal(
                "POLICY_VALUES", f"{write.point} may have {rule.max_length} characters, not {len(value)}"
            )
        return None
    return _number(command, write, value, rule)


def _number(command: Command, write: Write, value: float, rule: Rule) -> Refusal | None:
    low = rule.min is not None and value < rule.min
    if low or (rule.max is not None and value > rule.max):
        told = f"{write.point} may be {_range(rule)} for {command.issuer}, not {_text(value)}"
        return Refusal("POLICY_MIN" if low else "POLICY_MAX", told)
    if rule.step is not None and (_exact(value) - _exact(rule.min or 0)) % _exact(rule.step):
        start = f" from {_text(rule.min)}" if rule.min else ""
        told = f"{write.point} goes in steps of {_text(rule.step)}{start}, and {_text(value)} is none of them"
        return Refusal("POLICY_STEP", told)
    return None


def _dwell(command: Command, write: Write, rule: Rule, facts: Facts) -> Refusal | None:
    if rule.dwell_minutes is None:
        return None
    dwell = int(rule.dwell_minutes * _MINUTE)
    last = next(iter(facts.history.written(write.point, facts.now - dwell)), None)
    if last is None or last.at + dwell <= facts.now:
        return None
    waits = math.ceil((last.at + dwell - facts.now) / 1_000_000)
    told = (
        f"{write.point} was written less than {_text(rule.dwell_minutes)} minutes ago; try again in {waits} s"
    )
    return Refusal("POLICY_DWELL", told)


def _change(command: Command, write: Write, rule: Rule, facts: Facts) -> Refusal | None:
    """Compared with all that the point has been within the time, so that many small steps do not add up."""
    if rule.max_change is None or rule.max_change_minutes is None or write.value is None:
        return None
    within = f"{_text(rule.max_change)} in {_text(rule.max_change_minutes)} minutes"
    since = facts.now - int(rule.max_change_minutes * _MINUTE)
    been: list[Value] = []
    for written in facts.history.written(write.point, since):
        been.append(written.value)
        if written.at >= since:
            been.append(written.previous)
    if facts.readings is not None:
        reading = facts.readings.get(write.point)
        if reading is None or not _is("float", reading.value):
            told = f"{write.point} may change by {within}, and what it is now cannot be read"
            return Refusal("POLICY_MAX_CHANGE", told)
        been.append(reading.value)
    for value in been:
        if _is("float", value) and abs(_exact(write.value) - _exact(value)) > _exact(rule.max_change):
            was = f"it was {_text(value)}, and {_text(write.value)} is too far"
            told = f"{write.point} may change by {within}; {was}"
            return Refusal("POLICY_MAX_CHANGE", told)
    return None


def _is(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "bool"
    return isinstance(value, _TYPES[kind]) and not _odd(value)


def _odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _equal(value: Value, allowed: Value) -> bool:
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


def _exact(value: Any) -> Fraction:
    """The number as it is written: 0.1 is a tenth, and 20.1 lies on steps of it."""
    return Fraction(repr(value))


def _range(rule: Rule) -> str:
    if rule.min is None or rule.max is None:
        return f"{_text(rule.max)} at most" if rule.min is None else f"{_text(rule.min)} at least"
    return f"{_text(rule.min)} to {_text(rule.max)}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".") if 1e-4 <= abs(value) < 1e15 else repr(value)
    return repr(value[:60]) if isinstance(value, str) else str(value)
