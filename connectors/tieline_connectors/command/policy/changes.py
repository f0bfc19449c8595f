"""Which policy holds while its file changes: one that is half-written is never believed; pure.

A file that was moved into its place is whole, and its policy holds at once. One that was written in place
(the same file, or a new one behind a gap) is whole when it has not changed for `SETTLES` and nobody has it
open for writing. Until then **a command must pass both**: the last good policy, and the newest text that
could be read as one. So a limit that is not yet there is never missed, and one that is new holds at once.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from tieline.api import ConfigError
from tieline_connectors.command.model.command import Command
from tieline_connectors.command.model.facts import Facts, Refusal
from tieline_connectors.command.policy.file import parse
from tieline_connectors.command.policy.policy import Policy
from tieline_connectors.command.policy.rule import Limits
from tieline_connectors.command.watched_file import Content

SETTLES = 10_000_000
"""Microseconds that a file which is written in place has to stay as it is."""

Happened: TypeAlias = Literal["changed", "pending", "wrong"]


class InForce(NamedTuple):
    """What a command must pass now; ``pending``: a policy that is perhaps still being written."""

    good: Policy
    pending: Policy | None = None

    @property
    def limits(self) -> Limits:
        """Those of the last good policy."""
        return self.good.limits

    def refusal(self, command: Command, facts: Facts) -> Refusal | None:
        """Why a command may not be executed; none: all that is in force allows it."""
        refusal = self.good.refusal(command, facts)
        if refusal is None and self.pending is not None:
            refusal = self.pending.refusal(command, facts)
        return refusal


class Event(NamedTuple):
    """What has happened to the policy, for a counter and for the log."""

    what: Happened
    sentence: str


class PolicyChanges:
    """Told of every look at the file; used by one thread at a time."""

    def __init__(self, where: str, first: Content) -> None:
        """``first``: what the file held at the start. Raises ``ConfigError`` where that is no policy."""
        self.in_force = InForce(parse(first.text, where))
        self.known: tuple[int, ...] | None = first.stamp
        self._where = where
        self._file: tuple[int, int] | None = first.file
        self._good_text = self._text = first.text
        self._stamp = first.stamp
        self._newest: Policy | None = None
        self._problem = ""
        self._changed_at = 0
        self._told = ""
        self._is_pending = False

    def see(self, content: Content, now: int) -> Event | None:
        """The file holds this now (monotonic, microseconds); what follows from it, told once."""
        self._told = ""
        if content.stamp != self._stamp or content.text != self._text:
            return self._change(content, now)
        if self.known is None and not content.written and now - self._changed_at >= SETTLES:
            return self._settle(content)
        if content.written:
            self._changed_at = now
        return None

    def cannot_see(self, why: str) -> Event | None:
        """The file is not there, or cannot be read. What comes next was not moved over what was there."""
        self.known = self._file = None
        self._stamp = ()
        if self._told == why:
            return None
        self._told = why
        return Event("wrong", f"the policy {self._where} cannot be read, the last good one holds: {why}")

    def _change(self, content: Content, now: int) -> Event | None:
        replaced = self._file is not None and content.file != self._file
        whole = content.moved if content.written is None else not content.written
        self.known = None
        self._stamp, self._changed_at = content.stamp, now
        same = content.text == self._text
        if not same:
            self._text = content.text
            self._newest, self._problem = _parsed(content.text, self._where)
        if replaced and whole:
            return self._settle(content)
        self._file = self._file if self._file is None else content.file
        if self._newest is not None:
            self.in_force = InForce(self.in_force.good, self._newest)
        if self._is_pending or content.text == self._good_text:
            return None
        self._is_pending = True
        told = "the policy is being written in place: until it has not changed for"
        return Event(
            "pending",
            f"{told} {SETTLES // 1_000_000} s, commands must pass the last good one and the new one",
        )

    def _settle(self, content: Content) -> Event | None:
        self.known, self._file = content.stamp, content.file
        self._is_pending = False
        if self._text == self._good_text:
            self.in_force = InForce(self.in_force.good)
            return None
        if self._newest is None:
            told = f"the policy {self._where} has changed and is wrong, the last good one still holds"
            return Event("wrong", f"{told}: {self._problem}")
        self.in_force, self._good_text = InForce(self._newest), self._text
        return Event("changed", "the policy has changed, the new one holds from now on")


def _parsed(text: str, where: str) -> tuple[Policy | None, str]:
    try:
        return parse(text, where), ""
    except ConfigError as error:
        return None, str(error)
