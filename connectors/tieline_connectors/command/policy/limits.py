"""Whether one write keeps to the limits of its rule; each function looks at one of them. Pure."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from tieline_connectors.command.model.command import Command, Value, Write
from tieline_connectors.command.model.facts import Facts, Refusal
from tieline_connectors.command.policy.rule import MINUTE, Rule, is_of

_KINDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "text": "a text"}


def broken(command: Command, write: Write, rule: Rule, facts: Facts) -> Refusal | None:
    """The first limit of the rule that a write does not keep to, or none."""
    for limit in (_reason, _hold, _value, _tolerance, _dwell, _change):
        refusal = limit(command, write, rule, facts)
        if refusal is not None:
            return refusal
    return None


def _reason(command: Command, write: Write, rule: Rule, facts: Facts) -> Refusal | None:
    if rule.reason_required and not command.reason:
        return Refusal("POLICY_REASON", f"{write.point} is written only with a reason")
    return None


def _hold(command: Command, write: Write, rule: Rule, facts: Facts) -> Refusal | None:
    if rule.max_hold_minutes is None or write.value is None:
        return None
    longest = f"{text_of(rule.max_hold_minutes)} minutes at most"
    if command.hold_ms is None:
        told = f"{write.point} is written only with a hold (hold_ms), {longest}"
        return Refusal("POLICY_HOLD", told) if rule.hold_required else None
    if command.hold_ms > rule.max_hold_minutes * 60_000:
        asked = text_of(round(command.hold_ms / 60_000, 3))
        return Refusal("POLICY_HOLD", f"{write.point} may be held {longest}, not {asked}")
    return None


def _value(command: Command, write: Write, rule: Rule, facts: Facts) -> Refusal | None:
    value = write.value
    if value is None or rule.type is None:
        return None
    if not is_of(rule.type, value):
        return Refusal("POLICY_TYPE", f"{write.point} is {_KINDS[rule.type]}, not {text_of(value)}")
    if rule.values is not None and not any(_equal(value, allowed) for allowed in rule.values):
        allowed = ", ".join(map(text_of, rule.values))
        return Refusal(
            "POLICY_VALUES", f"{write.point} may be {allowed} for {command.issuer}, not {text_of(value)}"
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
        told = f"{write.point} may be {_range(rule)} for {command.issuer}, not {text_of(value)}"
        return Refusal("POLICY_MIN" if low else "POLICY_MAX", told)
    if rule.step is not None and (_exact(value) - _exact(rule.min or 0)) % _exact(rule.step):
        start = f" from {text_of(rule.min)}" if rule.min else ""
        steps = f"{write.point} goes in steps of {text_of(rule.step)}{start}"
        return Refusal("POLICY_STEP", f"{steps}, and {text_of(value)} is none of them")
    return None


def _tolerance(command: Command, write: Write, rule: Rule, facts: Facts) -> Refusal | None:
    """An issuer's own one: whoever may choose it freely has every write proved by any reading."""
    if "tolerance" in command.filled or not is_of("float", write.value):
        return None
    if command.tolerance <= rule.max_tolerance:
        return None
    most = text_of(rule.max_tolerance)
    told = f"{write.point} is read back with a tolerance of {most} at most, not {text_of(command.tolerance)}"
    return Refusal("POLICY_TOLERANCE", told)


def _dwell(command: Command, write: Write, rule: Rule, facts: Facts) -> Refusal | None:
    if rule.dwell_minutes is None:
        return None
    dwell = int(rule.dwell_minutes * MINUTE)
    last = next(iter(facts.history.written(write.point, facts.now - dwell)), None)
    if last is None or last.at + dwell <= facts.now:
        return None
    waits = math.ceil((last.at + dwell - facts.now) / 1_000_000)
    ago = f"less than {text_of(rule.dwell_minutes)} minutes ago"
    return Refusal("POLICY_DWELL", f"{write.point} was written {ago}; try again in {waits} s")


def _change(command: Command, write: Write, rule: Rule, facts: Facts) -> Refusal | None:
    """Compared with all that the point has been within the time, so that many small steps do not add up."""
    if rule.max_change is None or rule.max_change_minutes is None or write.value is None:
        return None
    within = f"{text_of(rule.max_change)} in {text_of(rule.max_change_minutes)} minutes"
    since = facts.now - int(rule.max_change_minutes * MINUTE)
    been: list[Value] = []
    for written in facts.history.written(write.point, since):
        been.append(written.value)
        if written.at >= since:
            been.append(written.previous)
    if facts.readings is not None:
        reading = facts.readings.get(write.point)
        if reading is None or not is_of("float", reading.value):
            told = f"{write.point} may change by {within}, and what it is now cannot be read"
            return Refusal("POLICY_MAX_CHANGE", told)
        been.append(reading.value)
    for value in been:
        if is_of("float", value) and abs(_exact(write.value) - _exact(value)) > _exact(rule.max_change):
            was = f"it was {text_of(value)}, and {text_of(write.value)} is too far"
            told = f"{write.point} may change by {within}; {was}"
            return Refusal("POLICY_MAX_CHANGE", told)
    return None


def text_of(value: Any) -> str:
    """A value as a person writes it: 21 for 21.0."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return repr(value[:60]) if isinstance(value, str) else str(value)


def _equal(value: Value, allowed: Value) -> bool:
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


def _exact(value: Any) -> Fraction:
    """The number as it is written: 0.1 is a tenth, and 20.1 lies on steps of it."""
    return Fraction(repr(value))


def _range(rule: Rule) -> str:
    if rule.min is None or rule.max is None:
        return f"{text_of(rule.max)} at most" if rule.min is None else f"{text_of(rule.min)} at least"
    return f"{text_of(rule.min)} to {text_of(rule.max)}"
