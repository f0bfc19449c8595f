"""The command sinks of a worker, as pages see them: their policy, kill switch and audit log."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tieline.api import ConfigError, DataError, TielineError
from tieline.api.pages import PageContext, PageError
from tieline_connectors.command.audit.verification import read_head, verify_file
from tieline_connectors.command.cli import parsing
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.model.command import canonical
from tieline_connectors.command.model.facts import PolicyContext, Rejection
from tieline_connectors.command.pages.form import ReleaseForm, SetForm
from tieline_connectors.command.policy.file import parse
from tieline_connectors.command.policy.policy import Policy
from tieline_connectors.command.policy.rule import Rule
from tieline_connectors.command.watched_file import kill_switch_reason

_MAX_REASON = 500
_REMEMBERED = 1000  # commands that were sent, each with the form that it came from


class AuditState(NamedTuple):
    """What is known about an audit log: its length, its head, and its first break if it is not whole."""

    path: Path
    lines: int
    head: str
    problem: str


class CheckedCommand(NamedTuple):
    """A command that the policy has decided about, as it was at one moment."""

    fields: Mapping[str, Any]
    """The fields of ``command.Command``: exactly these are sent."""
    rejection: Rejection | None
    """Only the sink knows what was written before, so it may still reject what this allows."""
    protected: Sequence[str]
    """The points that are written only after they were named a second time."""

    @property
    def command_id(self) -> str:
        """The id of the command."""
        return str(self.fields["command_id"])

    def same_content(self, other: CheckedCommand) -> bool:
        """Return whether both are the same apart from when they were issued."""
        return self._content() == other._content()

    def _content(self) -> str:
        fields = dict(self.fields)
        ttl = fields.pop("expires_at") - fields.pop("issued_at")
        return canonical({**fields, "ttl": ttl})


class CommandPlant:
    """One command sink: where its commands go, and what its policy says now. Any thread may call it."""

    def __init__(self, context: PageContext, name: str, config: CommandSinkConfig, topic: str) -> None:
        self._context = context
        self.name = name
        self.config = config
        self.topic = topic
        self.platform = config.platform
        self._parsed: tuple[str, Policy] | None = None
        self._sent: OrderedDict[str, CheckedCommand] = OrderedDict()
        self._lock = threading.Lock()
        self._verifying = threading.Lock()

    def policy(self) -> Policy:
        """Return the policy as the file is now. Raises ``PageError``."""
        try:
            text = self.config.policy_content().text
            parsed = self._parsed
            if parsed is None or parsed[0] != text:
                parsed = self._parsed = text, parse(text, str(self.config.policy_file))
        except ConfigError as error:
            raise PageError(503, f"The policy of {self.name} cannot be read: {error}") from error
        return parsed[1]

    def rule(self, policy: Policy, issuer: str, form: SetForm) -> Rule | None:
        """Return the rule that decides about a form's point for an issuer; ``None`` if no rule does."""
        matches = (rule for rule in policy.rules if rule.matches(issuer, form.point, form.action))
        return next(matches, None)

    def check(self, form: SetForm, issuer: str) -> CheckedCommand:
        """Return the command of a form, and what the policy says. Raises ``ValueError``, ``PageError``."""
        policy, now = self.policy(), time.time_ns() // 1000
        return _check(form.fields(issuer, self.platform, self.rule(policy, issuer, form), now), policy, now)

    def check_release(self, form: ReleaseForm, issuer: str) -> CheckedCommand:
        """Return the command that releases a hold. Raises ``ValueError``, ``PageError``."""
        now = time.time_ns() // 1000
        return _check(form.fields(issuer, self.platform, now), self.policy(), now)

    def send(self, checked: CheckedCommand) -> None:
        """Send a command. The same form again, such as a double click, is the same command.

        Raises ``PageError``, ``ValueError``.
        """
        with self._lock:
            first = self._sent.setdefault(checked.command_id, checked)
            if len(self._sent) > _REMEMBERED:
                self._sent.popitem(last=False)
        if not first.same_content(checked):
            raise PageError(
                409,
                f"Nothing was sent: another command with the id {checked.command_id} was sent before. Open"
                " the form again",
            )
        record = parsing.to_record(first.fields, self.topic, "avro")
        try:
            with self._context.topics() as topics:
                topics.send([record])
        except DataError as error:
            raise PageError(400, f"Nothing was sent: the broker rejected it: {error}") from error
        except TielineError as error:
            raise PageError(
                503,
                f"It is unknown whether the command {checked.command_id} was sent: {error}. Send the page"
                " again: a command with the same id is executed once",
            ) from error

    def killed(self) -> str | None:
        """Return why nothing is written at the moment, or ``None``."""
        file = self.config.kill_switch_file
        return None if file is None else kill_switch_reason(file)

    def kill(self, reason: str) -> None:
        """Engage the kill switch. Raises ``PageError``."""
        file = self._switch_file()
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            raise PageError(409, "The kill switch is engaged already") from None
        except OSError as error:
            raise PageError(503, f"The kill switch {file} cannot be engaged: {error.strerror}") from error
        line = "".join(each if each.isprintable() else " " for each in reason)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                opened.write(" ".join(line.split())[:_MAX_REASON] + "\n")
                opened.flush()
                os.fsync(opened.fileno())
        except OSError as error:
            raise PageError(
                503, f"The kill switch is engaged, but its reason cannot be written: {error.strerror}"
            ) from error

    def release_switch(self) -> None:
        """Release the kill switch. Raises ``PageError``."""
        file = self._switch_file()
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise PageError(503, f"The kill switch {file} cannot be released: {error.strerror}") from error

    def audit_state(self) -> AuditState:
        """Verify the whole audit log; takes about a second for 100,000 lines.

        Raises ``PageError`` while another request verifies it: each would slow down the worker.
        """
        if not self._verifying.acquire(blocking=False):
            raise PageError(429, "The audit log is being verified already. Try again in a moment")
        try:
            return self._verify()
        finally:
            self._verifying.release()

    def _verify(self) -> AuditState:
        path = self.config.audit_file
        try:
            broken = verify_file(path)
            head = read_head(path)
        except FileNotFoundError:
            return AuditState(path, 0, "", "the file does not exist yet: the sink creates it at its start")
        except (OSError, ValueError, RecursionError) as error:
            return AuditState(path, 0, "", f"it cannot be read: {error}")
        lines, text = (head.seq, head.hash) if head is not None else (0, "")
        return AuditState(path, lines, text, "" if broken is None else f"line {broken.line}: {broken.reason}")

    def _switch_file(self) -> Path:
        file = self.config.kill_switch_file
        if file is None:
            raise PageError(
                409, f"{self.name} has no kill switch. Set kill.switch.file in its file, and restart"
            )
        return file


def is_clock_doubted(ledger: Mapping[str, Any]) -> bool:
    """Return whether a task of the sink does not believe the clock now."""
    counters = ledger.get("counters", {})
    return bool(counters.get("clock.untrusted", 0) > counters.get("clock.trusted", 0))


def _check(fields: Mapping[str, Any], policy: Policy, now: int) -> CheckedCommand:
    command = parsing.check_command(fields)
    rules = [(write.point, policy.rules[number - 1]) for write, number in policy.deciding_rules(command)]
    protected = [point for point, rule in rules if rule.confirmation]
    return CheckedCommand(fields, policy.rejection(command, PolicyContext(now)), protected)
