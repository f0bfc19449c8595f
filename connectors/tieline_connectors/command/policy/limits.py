"""Check whether one write keeps to the limits of its rule; each function checks one limit. Pure."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from tieline_connectors.command.model.command import Command, Value, Write
from tieline_connectors.command.model.facts import PolicyContext, Rejection
from tieline_connectors.command.policy.rule import MINUTE, Rule, has_type

_KINDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "text": "a text"}


def check_limits(command: Command, write: Write, rule: Rule, context: PolicyContext) -> Rejection | None:
    """Return the first limit of the rule that a write breaks; ``None`` if it keeps to all."""
    for limit in (_reason, _hold, _value, _tolerance, _dwell, _change):
        rejection = limit(command, write, rule, context)
        if rejection is not None:
            return rejection
    return None


def _reason(command: Command, write: Write, rule: Rule, context: PolicyContext) -> Rejection | None:
    if rule.reason_required and not command.reason:
        return Rejection("POLICY_REASON", f"{write.point} is written only with a reason")
    return None


def _hold(command: Command, write: Write, rule: Rule, context: PolicyContext) -> Rejection | None:
    if rule.max_hold_minutes is None or write.value is None:
        return None
    longest = f"{format_value(rule.max_hold_minutes)} minutes at most"
    if command.hold_ms is None:
        message = f"{write.point} is written only with a hold (hold_ms), {longest}"
        return Rejection("POLICY_HOLD", message) if rule.hold_required else None
    if command.hold_ms > rule.max_hold_minutes * 60_000:
        requested = format_value(round(command.hold_ms / 60_000, 3))
        return Rejection("POLICY_HOLD", f"{write.point} may be held {longest}, not {requested}")
    return None


def _value(command: Command, write: Write, rule: Rule, context: PolicyContext) -> Rejection | None:
    value = write.value
    if value is None or rule.type is None:
        return None
    if not has_type(rule.type, value):
        return Rejection("POLICY_TYPE", f"{write.point} is {_KINDS[rule.type]}, not {format_value(value)}")
    if rule.values is not None and not any(_equal(value, allowed) for allowed in rule.values):
        allowed = ", ".join(map(format_value, rule.values))
        return Rejection(
            "POLICY_VALUES", f"{write.point} may be {allowed} for {command.issuer}, not {format_value(value)}"
        )
    if isinstance(value, str):
        if rule.max_length is not None and len(value) > rule.max_length:
            return Rejection(
                "POLICY_VALUES", f"{write.point} may have {rule.max_length} characters, not {len(value)}"
            )
        return None
    return _number(command, write, value, rule)


def _number(command: Command, write: Write, value: float, rule: Rule) -> Rejection | None:
    low = rule.min is not None and value < rule.min
    if low or (rule.max is not None and value > rule.max):
        message = f"{write.point} may be {_range(rule)} for {command.issuer}, not {format_value(value)}"
        return Rejection("POLICY_MIN" if low else "POLICY_MAX", message)
    if rule.step is not None and (_exact(value) - _exact(rule.min or 0)) % _exact(rule.step):
        start = f" from {format_value(rule.min)}" if rule.min else ""
        steps = f"{write.point} goes in steps of {format_value(rule.step)}{start}"
        return Rejection("POLICY_STEP", f"{steps}, and {format_value(value)} is not one of them")
    return None


def _tolerance(command: Command, write: Write, rule: Rule, context: PolicyContext) -> Rejection | None:
    """Limit an issuer's own tolerance: with a free choice, any reading would prove any write."""
    if "tolerance" in command.filled or not has_type("float", write.value):
        return None
    if command.tolerance <= rule.max_tolerance:
        return None
    most = format_value(rule.max_tolerance)
    asked = format_value(command.tolerance)
    message = f"{write.point} is read back with a tolerance of {most} at most, not {asked}"
    return Rejection("POLICY_TOLERANCE", message)


def _dwell(command: Command, write: Write, rule: Rule, context: PolicyContext) -> Rejection | None:
    if rule.dwell_minutes is None:
        return None
    dwell = int(rule.dwell_minutes * MINUTE)
    last = next(iter(context.history.writes(write.point, context.now - dwell)), None)
    if last is None or last.at + dwell <= context.now:
        return None
    waits = math.ceil((last.at + dwell - context.now) / 1_000_000)
    ago = f"less than {format_value(rule.dwell_minutes)} minutes ago"
    return Rejection("POLICY_DWELL", f"{write.point} was written {ago}; try again in {waits} s")


def _change(command: Command, write: Write, rule: Rule, context: PolicyContext) -> Rejection | None:
    """Compare with all values of the point within the time, so that many small steps do not add up."""
    if rule.max_change is None or rule.max_change_minutes is None or write.value is None:
        return None
    within = f"{format_value(rule.max_change)} in {format_value(rule.max_change_minutes)} minutes"
    since = context.now - int(rule.max_change_minutes * MINUTE)
    values: list[Value] = []
    for past in context.history.writes(write.point, since):
        values.append(past.value)
        if past.at >= since:
            values.append(past.previous)
    if context.readings is not None:
        reading = context.readings.get(write.point)
        if reading is None or not has_type("float", reading.value):
            message = f"{write.point} may change by {within}, and its value now cannot be read"
            return Rejection("POLICY_MAX_CHANGE", message)
        values.append(reading.value)
    for value in values:
        if has_type("float", value) and abs(_exact(write.value) - _exact(value)) > _exact(rule.max_change):
            was = f"it was {format_value(value)}, and {format_value(write.value)} is too far"
            message = f"{write.point} may change by {within}; {was}"
            return Rejection("POLICY_MAX_CHANGE", message)
    return None


def format_value(value: Any) -> str:
    """Return a value as a person writes it: 21 for 21.0."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return repr(value[:60]) if isinstance(value, str) else str(value)


def _equal(value: Value, allowed: Value) -> bool:
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


def _exact(value: Any) -> Fraction:
    """Return the decimal number as it is written: 0.1 is a tenth, and 20.1 is a multiple of it."""
    return Fraction(repr(value))


def _range(rule: Rule) -> str:
    if rule.min is None or rule.max is None:
        return (
            f"{format_value(rule.max)} at most" if rule.min is None else f"{format_value(rule.min)} at least"
        )
    return f"{format_value(rule.min)} to {format_value(rule.max)}"
