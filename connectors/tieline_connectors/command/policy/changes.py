"""Decide which policy holds while its file changes: an incomplete file never takes effect; pure.

A file that was moved into its place is complete, and its policy holds at once. One that was written in place
(the same file, or a new one after the old was deleted) is complete when it has not changed for `SETTLES`, and
no process has it open for writing. Until then **a command must pass both**: the last good policy, and the
newest text that could be parsed. So an old limit still holds, and a new one holds at once.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from tieline.api import ConfigError
from tieline_connectors.command.model.command import Command
from tieline_connectors.command.model.facts import PolicyContext, Rejection
from tieline_connectors.command.policy.file import parse
from tieline_connectors.command.policy.policy import Policy
from tieline_connectors.command.policy.rule import Limits
from tieline_connectors.command.watched_file import Content

SETTLES = 10_000_000
"""Microseconds that a file written in place must stay unchanged."""

PolicyEventKind: TypeAlias = Literal["changed", "pending", "wrong"]


class EffectivePolicy(NamedTuple):
    """What a command must pass now; ``pending``: a policy that may still be incomplete."""

    good: Policy
    pending: Policy | None = None

    @property
    def limits(self) -> Limits:
        """The limits of the last good policy."""
        return self.good.limits

    def rejection(self, command: Command, context: PolicyContext) -> Rejection | None:
        """Return why a command may not be executed; ``None`` if everything in force allows it."""
        rejection = self.good.rejection(command, context)
        if rejection is None and self.pending is not None:
            rejection = self.pending.rejection(command, context)
        return rejection


class PolicyEvent(NamedTuple):
    """What happened to the policy, for a counter and for the log."""

    kind: PolicyEventKind
    message: str


class PolicyChanges:
    """Decides which content of the policy file is in force. Used by one thread at a time.

    ``update`` gets the content of the file after every change.
    """

    def __init__(self, where: str, first: Content) -> None:
        """``first``: the content at the start. Raises ``ConfigError`` if it is not a policy."""
        self.in_force = EffectivePolicy(parse(first.text, where))
        self.known: tuple[int, ...] | None = first.stamp
        self._where = where
        self._file: tuple[int, int] | None = first.file
        self._good_text = self._text = first.text
        self._stamp = first.stamp
        self._newest: Policy | None = None
        self._problem = ""
        self._changed_at = 0
        self._last_reason = ""
        self._is_pending = False

    def update(self, content: Content, now: int) -> PolicyEvent | None:
        """Take in the file's content at ``now`` (monotonic, microseconds); return what happened, once."""
        self._last_reason = ""
        if content.stamp != self._stamp or content.text != self._text:
            return self._change(content, now)
        if self.known is None and not content.written and now - self._changed_at >= SETTLES:
            return self._settle(content)
        if content.written:
            self._changed_at = now
        return None

    def unreadable(self, why: str) -> PolicyEvent | None:
        """Take in that the file cannot be read; return what happened, once.

        The next content was then not moved over the old file.
        """
        self.known = self._file = None
        self._stamp = ()
        if self._last_reason == why:
            return None
        self._last_reason = why
        return PolicyEvent(
            "wrong", f"the policy {self._where} cannot be read, the last good one holds: {why}"
        )

    def _change(self, content: Content, now: int) -> PolicyEvent | None:
        replaced = self._file is not None and content.file != self._file
        complete = content.moved if content.written is None else not content.written
        self.known = None
        self._stamp, self._changed_at = content.stamp, now
        if content.text != self._text:
            self._text = content.text
            self._newest, self._problem = _try_parse(content.text, self._where)
        if replaced and complete:
            return self._settle(content)
        self._file = self._file if self._file is None else content.file
        if self._newest is not None:
            self.in_force = EffectivePolicy(self.in_force.good, self._newest)
        if self._is_pending or content.text == self._good_text:
            return None
        self._is_pending = True
        message = "the policy is being written in place: until it has not changed for"
        return PolicyEvent(
            "pending",
            f"{message} {SETTLES // 1_000_000} s, commands must pass the last good one and the new one",
        )

    def _settle(self, content: Content) -> PolicyEvent | None:
        self.known, self._file = content.stamp, content.file
        self._is_pending = False
        if self._text == self._good_text:
            self.in_force = EffectivePolicy(self.in_force.good)
            return None
        if self._newest is None:
            message = f"the policy {self._where} has changed and is wrong, the last good one still holds"
            return PolicyEvent("wrong", f"{message}: {self._problem}")
        self.in_force, self._good_text = EffectivePolicy(self._newest), self._text
        return PolicyEvent("changed", "the policy has changed, the new one holds from now on")


def _try_parse(text: str, where: str) -> tuple[Policy | None, str]:
    try:
        return parse(text, where), ""
    except ConfigError as error:
        return None, str(error)
