"""One rule of a policy file, and the limits of all rules: their form and their problems; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

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

from tieline_connectors.command.model.command import Action
from tieline_connectors.command.policy.patterns import matches_name, matches_point

MINUTE = 60_000_000
"""Microseconds."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "text": (str,),
}


def _as_tuple(value: Any) -> Any:
    """A single item needs no brackets."""
    return (value,) if isinstance(value, str) else value


def _check_scalar(value: Any) -> Any:
    if not isinstance(value, (bool, int, float, str)):
        raise ValueError("a value must be true, false, a number or a text")
    return value


Number = Annotated[StrictFloat, Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Minutes = Annotated[Number, Field(gt=0, le=1440)]
Text = Annotated[StrictStr, Field(min_length=1, max_length=500)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_as_tuple), Field(min_length=1, max_length=1000)]
Actions = Annotated[tuple[Action, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
Values = Annotated[
    tuple[Annotated[Any, BeforeValidator(_check_scalar)], ...], Field(min_length=1, max_length=1000)
]
Priority = Annotated[StrictInt, Field(ge=1, le=16)]


class PolicyPart(BaseModel):
    """A map of the file: unknown keys are rejected, and no value is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Rate(PolicyPart):
    """The most commands in any period of that many minutes."""

    commands: Annotated[StrictInt, Field(ge=1, le=1_000_000)]
    minutes: Minutes


class Breaker(PolicyPart):
    """After that many failures in a row, a device gets no commands for that time; then one may try."""

    failures: Annotated[StrictInt, Field(ge=1, le=1000)]
    minutes: Minutes


class Limits(PolicyPart):
    """How many commands may be started; counted from the ledger, so they survive a restart."""

    per_device: Rate | None = None
    per_issuer: Rate | None = None
    total: Rate | None = None
    breaker: Breaker | None = None


class Rule(PolicyPart):
    """What some issuers may do with some points."""

    issuers: Texts
    points: Texts
    actions: Actions = ("SET", "REVERT")
    deny: Annotated[StrictStr, Field(min_length=1, max_length=200)] | None = None
    type: Literal["bool", "int", "float", "text"] | None = None
    min: Number | None = None
    max: Number | None = None
    step: Positive | None = None
    values: Values | None = None
    max_length: Annotated[StrictInt, Field(ge=1, le=1000)] | None = None
    max_change: Positive | None = None
    max_change_minutes: Minutes | None = None
    dwell_minutes: Minutes | None = None
    max_tolerance: NotNegative = 0.0
    max_hold_minutes: Positive | None = None
    hold_required: StrictBool = False
    reason_required: StrictBool = False
    key: Text | None = None
    highest_priority: Priority | None = None
    confirmation: StrictBool = False
    """Pages ask for the point's name once more before they send a command."""

    def problems(self) -> list[tuple[str, str]]:
        """Return the problems between keys: each key with its problem and its fix."""
        if self.deny is not None:
            limits = self.model_fields_set - {"issuers", "points", "actions", "deny"}
            return [(key, "has no meaning beside deny: remove it") for key in sorted(limits)]
        if "SET" not in self.actions:
            limits = self.model_fields_set & {
                *("type", "min", "max", "step", "values", "max_length", "max_change", "max_change_minutes"),
                *("max_tolerance", "max_hold_minutes", "hold_required"),
            }
            return [(key, "has no meaning without the action SET: remove it") for key in sorted(limits)]
        return [*self._problems_of_type(), *self._problems_of_change()]

    def _problems_of_type(self) -> list[tuple[str, str]]:
        if self.type is None:
            return [("type", "is required with the action SET: bool, int, float or text")]
        problems: list[tuple[str, str]] = []
        numeric = self.type in ("int", "float")
        if not numeric:
            numbers = {"min", "max", "step", "max_change", "max_change_minutes", "max_tolerance"}
            keys = sorted(self.model_fields_set & numbers)
            problems += [(key, f"is for numbers, and the type is {self.type}") for key in keys]
        if self.type != "text" and self.max_length is not None:
            problems.append(("max_length", f"is for texts, and the type is {self.type}"))
        if numeric and self.values is None and (self.min is None or self.max is None):
            problems.append(("min", "and max are both required for a number (or values)"))
        if self.type == "text" and self.values is None and self.max_length is None:
            problems.append(("values", "or max_length is required for a text"))
        if self.min is not None and self.max is not None and self.min > self.max:
            problems.append(("min", "is greater than max"))
        if any(not has_type(self.type, value) for value in self.values or ()):
            problems.append(("values", f"are not all of the type {self.type}"))
        if self.values is not None and self.step is not None:
            problems.append(("step", "has no meaning beside values: remove it"))
        return problems

    def _problems_of_change(self) -> list[tuple[str, str]]:
        problems: list[tuple[str, str]] = []
        if (self.max_change is None) != (self.max_change_minutes is None):
            problems.append(
                ("max_change", "and max_change_minutes need each other: how much in how many minutes")
            )
        if self.hold_required and self.max_hold_minutes is None:
            problems.append(("max_hold_minutes", "is required with hold_required: the longest hold"))
        return problems

    def matches(self, issuer: str, point: str, action: Action) -> bool:
        """Return whether this rule is about the issuer, the point and the action."""
        return (
            action in self.actions
            and any(matches_name(pattern, issuer) for pattern in self.issuers)
            and any(matches_point(pattern, point) for pattern in self.points)
        )


def has_type(kind: str, value: Any) -> bool:
    """Return whether a value has a rule's type; NaN and the infinities have none."""
    if isinstance(value, bool):
        return kind == "bool"
    return isinstance(value, _TYPES[kind]) and not (isinstance(value, float) and not math.isfinite(value))
