"""Decide who may write which points, with which values; pure. What no rule allows is rejected.

The rules are read from the top: **the first rule that names the issuer, the point and the action
decides**, and all of its limits hold. `Policy.rejection` returns the first problem, in a sentence for the
operator of the plant. The file's reference, with examples, is docs/reference/command-policy.md.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from tieline_connectors.command.model.command import Action, Command, Write
from tieline_connectors.command.model.facts import EmptyHistory, History, PolicyContext, Reading, Rejection
from tieline_connectors.command.policy.limits import check_limits, format_value
from tieline_connectors.command.policy.rule import MINUTE, Limits, PolicyPart, Priority, Rate, Rule

__all__ = ["EmptyHistory", "History", "Policy", "PolicyContext", "Reading", "Rejection", "action_of"]


class Policy(PolicyPart):
    """A policy file; `file.parse` creates it."""

    version: Literal[1]
    highest_priority: Priority = 8
    limits: Limits = Limits()
    rules: Annotated[tuple[Rule, ...], Field(max_length=10_000)] = ()

    def rejection(self, command: Command, context: PolicyContext) -> Rejection | None:
        """Return the first reason why this command may not be executed now; ``None`` if it may.

        All writes are checked before the first is done. Signatures come first: an issuer that did not sign
        learns nothing about the limits.
        """
        decided: list[tuple[Write, int, Rule]] = []
        for write in command.writes:
            match = self._find_rule(command, write)
            if isinstance(match, Rejection):
                return match
            decided.append((write, *match))
        for write, number, rule in decided:
            if rule.key is not None and rule.key not in context.signed_with:
                message = f"{write.point} needs a signature with the key {rule.key} (rule {number})"
                return Rejection("SIGNATURE", message, write.point)
        for write, number, rule in decided:
            rejection = self._check_priority(command, write, rule) or check_limits(
                command, write, rule, context
            )
            if rejection is not None:
                return Rejection(rejection.code, f"{rejection.reason} (rule {number})", write.point)
        return self._check_breaker(command, context) or self._check_rates(command, context)

    def deciding_rules(self, command: Command) -> list[tuple[Write, int]]:
        """Return each write that a rule allows, with the number of the rule, from 1."""
        matches = [(write, self._find_rule(command, write)) for write in command.writes]
        return [(write, rule[0]) for write, rule in matches if not isinstance(rule, Rejection)]

    def _find_rule(self, command: Command, write: Write) -> tuple[int, Rule] | Rejection:
        """Return the first rule about a write, with its number from 1."""
        action = action_of(command, write)
        for number, rule in enumerate(self.rules, start=1):
            if rule.matches(command.issuer, write.point, action):
                if rule.deny is not None:
                    message = f"{command.issuer} may not {action} {write.point}: {rule.deny} (rule {number})"
                    return Rejection("POLICY_DENIED", message, write.point)
                return number, rule
        message = f"no rule allows {command.issuer} to {action} {write.point}"
        return Rejection("NOT_ALLOWED", message, write.point)

    def _check_priority(self, command: Command, write: Write, rule: Rule) -> Rejection | None:
        highest = rule.highest_priority if rule.highest_priority is not None else self.highest_priority
        if command.priority is None or command.priority >= highest:
            return None
        may = f"may be written at priority {highest} to 16 by {command.issuer}"
        message = f"{write.point} {may}, not {command.priority}"
        return Rejection("POLICY_PRIORITY", message)

    def _check_breaker(self, command: Command, context: PolicyContext) -> Rejection | None:
        """Reject every command while the breaker is open; after that, the first one tries the device."""
        breaker = self.limits.breaker
        if breaker is None:
            return None
        for device in sorted(command.devices):
            failures, last_at = context.history.streak(device)
            left = last_at + int(breaker.minutes * MINUTE) - context.now
            if failures >= breaker.failures and left > 0:
                message = f"the last {failures} commands of {device} have failed; the next may try in"
                return Rejection("CIRCUIT_OPEN", f"{message} {math.ceil(left / 1_000_000)} s")
        return None

    def _check_rates(self, command: Command, context: PolicyContext) -> Rejection | None:
        limits = self.limits
        rates: list[tuple[Rate | None, str, dict[str, str]]] = [
            (limits.per_device, f"on {device}", {"device": device}) for device in sorted(command.devices)
        ]
        rates.append((limits.per_issuer, f"of {command.issuer}", {"issuer": command.issuer}))
        rates.append((limits.total, "in all", {}))
        for rate, scope, of in rates:
            if rate is not None:
                since = context.now - int(rate.minutes * MINUTE)
                if context.history.count_starts(since, **of) >= rate.commands:
                    most = f"at most {rate.commands} commands in {format_value(rate.minutes)} minutes"
                    return Rejection("RATE_LIMIT", f"{most} {scope} are allowed")
        return None


def action_of(command: Command, write: Write) -> Action:
    """Return the action of a write: SET with null reverts a point (BACnet's relinquish), as REVERT does."""
    return "REVERT" if write.value is None else command.action
