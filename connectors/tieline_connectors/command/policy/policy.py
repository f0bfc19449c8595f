"""Who may write what, where, and how far; pure. Nothing is allowed that no rule allows.

The rules are read from the top: **the first rule that names the issuer, the point and the action
decides**, and all of its limits hold. `Policy.refusal` tells the first thing that is wrong in a sentence
for whoever runs the plant. The file's reference, with examples, is docs/reference/command-policy.md.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from tieline_connectors.command.model.command import Action, Command, Write
from tieline_connectors.command.model.facts import Facts, History, NoHistory, Reading, Refusal
from tieline_connectors.command.policy.limits import broken, text_of
from tieline_connectors.command.policy.rule import MINUTE, Limits, Part, Priority, Rate, Rule

__all__ = ["Facts", "History", "NoHistory", "Policy", "Reading", "Refusal", "action_of"]


class Policy(Part):
    """The whole file; `policy_file.parse` makes one."""

    version: Literal[1]
    highest_priority: Priority = 8
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
                told = f"{write.point} needs a signature with the key {rule.key} (rule {number})"
                return Refusal("SIGNATURE", told, write.point)
        for write, number, rule in decided:
            refusal = self._priority(command, write, rule) or broken(command, write, rule, facts)
            if refusal is not None:
                return Refusal(refusal.code, f"{refusal.sentence} (rule {number})", write.point)
        return self._failing(command, facts) or self._too_many(command, facts)

    def deciding(self, command: Command) -> list[tuple[Write, int]]:
        """The number of the rule (from 1) that speaks of each write; left out where none does, or denies."""
        found = [(write, self._rule(command, write)) for write in command.writes]
        return [(write, rule[0]) for write, rule in found if not isinstance(rule, Refusal)]

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

    def _priority(self, command: Command, write: Write, rule: Rule) -> Refusal | None:
        highest = rule.highest_priority if rule.highest_priority is not None else self.highest_priority
        if command.priority is None or command.priority >= highest:
            return None
        may = f"may be written at priority {highest} to 16 by {command.issuer}"
        told = f"{write.point} {may}, not {command.priority}"
        return Refusal("POLICY_PRIORITY", told)

    def _failing(self, command: Command, facts: Facts) -> Refusal | None:
        """Open: nothing. After its time: whatever comes first; the next one is asked when that has ended."""
        breaker = self.limits.breaker
        if breaker is None:
            return None
        for device in sorted(command.devices):
            failures, last_at = facts.history.streak(device)
            left = last_at + int(breaker.minutes * MINUTE) - facts.now
            if failures >= breaker.failures and left > 0:
                told = f"the last {failures} commands of {device} have failed; it is tried again in"
                return Refusal("CIRCUIT_OPEN", f"{told} {math.ceil(left / 1_000_000)} s")
        return None

    def _too_many(self, command: Command, facts: Facts) -> Refusal | None:
        limits = self.limits
        asked: list[tuple[Rate | None, str, dict[str, str]]] = [
            (limits.per_device, f"on {device}", {"device": device}) for device in sorted(command.devices)
        ]
        asked.append((limits.per_issuer, f"of {command.issuer}", {"issuer": command.issuer}))
        asked.append((limits.total, "in all", {}))
        for rate, told, of in asked:
            if rate is not None:
                since = facts.now - int(rate.minutes * MINUTE)
                if facts.history.starts(since, **of) >= rate.commands:
                    most = f"at most {rate.commands} commands in {text_of(rate.minutes)} minutes"
                    return Refusal("RATE_LIMIT", f"{most} {told} are allowed")
        return None


def action_of(command: Command, write: Write) -> Action:
    """SET with null gives a point back (BACnet's relinquish), and so needs what REVERT needs."""
    return "REVERT" if write.value is None else command.action
