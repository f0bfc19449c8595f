"""The command sinks of a worker, as pages see them: their policy, kill switch and audit log."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tieline.api import ConfigError, DataError, TielineError
from tieline.api.pages import PageContext, PageError
from tieline_connectors.command.audit.verification import read_head, verify_file
from tieline_connectors.command.cli import parsing
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.model.command import Action, Command
from tieline_connectors.command.model.facts import PolicyContext, Rejection
from tieline_connectors.command.pages.form import SetForm
from tieline_connectors.command.policy.policy import Policy
from tieline_connectors.command.policy.rule import Rule
from tieline_connectors.command.watched_file import kill_switch_reason

_MAX_REASON = 500


class AuditState(NamedTuple):
    """What is known about an audit log: its length, its head, and its first break if it is not whole."""

    path: Path
    lines: int
    head: str
    problem: str


class CommandPlant:
    """One command sink: where its commands go, and what its policy says now. Any thread may call it."""

    def __init__(self, context: PageContext, name: str, config: CommandSinkConfig, topic: str) -> None:
        self._context = context
        self.name = name
        self.config = config
        self.topic = topic
        self.platform = config.platform

    def policy(self) -> Policy:
        """Return the policy as the file is now. Raises ``PageError``."""
        try:
            return self.config.policy()
        except ConfigError as error:
            raise PageError(503, f"The policy of {self.name} cannot be read: {error}") from error

    def rule(self, policy: Policy, issuer: str, point: str, action: Action) -> Rule | None:
        """Return the rule that decides about a point for an issuer; ``None`` if no rule does."""
        return next((rule for rule in policy.rules if rule.matches(issuer, point, action)), None)

    def command(self, form: SetForm, issuer: str) -> Command:
        """Return the command of a form, as the sink will parse it. Raises ``ValueError``, ``PageError``."""
        return parsing.check_command(self._fields(form, issuer))

    def send(self, form: SetForm, issuer: str) -> None:
        """Send the command of a form. Raises ``PageError``, ``ValueError``."""
        record = parsing.to_record(self._fields(form, issuer), self.topic, "avro")
        try:
            with self._context.topics() as topics:
                topics.send([record])
        except DataError as error:
            raise PageError(400, f"Nothing was sent: the broker rejected it: {error}") from error
        except TielineError as error:
            raise PageError(
                503,
                f"It is unknown whether the command {form.command_id} was sent: {error}. Send the page again:"
                " a command with the same id is executed once",
            ) from error

    def rejection(self, command: Command) -> Rejection | None:
        """Return why the policy rejects a command now. Only the sink knows what was written before."""
        return self.policy().rejection(command, PolicyContext(time.time_ns() // 1000))

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
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(" ".join(reason.split())[:_MAX_REASON] + "\n")
            opened.flush()
            os.fsync(opened.fileno())

    def release_switch(self) -> None:
        """Release the kill switch. Raises ``PageError``."""
        file = self._switch_file()
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise PageError(503, f"The kill switch {file} cannot be released: {error.strerror}") from error

    def audit_state(self) -> AuditState:
        """Verify the whole audit log; takes about a second for 100,000 lines."""
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

    def _fields(self, form: SetForm, issuer: str) -> dict[str, Any]:
        rule = self.rule(self.policy(), issuer, form.point, form.action)
        return form.fields(issuer, self.platform, rule, time.time_ns() // 1000)

    def _switch_file(self) -> Path:
        file = self.config.kill_switch_file
        if file is None:
            raise PageError(
                409, f"{self.name} has no kill switch. Set kill.switch.file in its file, and restart"
            )
        return file


def plants_of(context: PageContext) -> Sequence[CommandPlant]:
    """Return the command sinks of a worker that read a topic by its name."""
    return [
        CommandPlant(context, each.name, CommandSinkConfig.parse(each.settings), each.topics[0])
        for each in context.connectors
        if each.plugin == "command" and each.kind == "sink" and each.topics
    ]


def is_protected(rule: Rule | None) -> bool:
    """Return whether a point is written only after it was named a second time."""
    return rule is not None and rule.confirmation


def is_clock_doubted(ledger: Mapping[str, Any]) -> bool:
    """Return whether a task of the sink does not believe the clock now."""
    counters = ledger.get("counters", {})
    return bool(counters.get("clock.untrusted", 0) > counters.get("clock.trusted", 0))
