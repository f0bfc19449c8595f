"""What a decision depends on beside the command: clocks, kill switch, policy; as they are at this moment."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from tieline.api import ConfigError, ConfigProblem
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.execution.clock_sources import Word, vouched
from tieline_connectors.command.execution.wall_clock import WallClock, clocks
from tieline_connectors.command.model.clock import ClockWatch, Now
from tieline_connectors.command.policy.changes import Event, InForce, PolicyChanges
from tieline_connectors.command.policy.file import MAX_BYTES
from tieline_connectors.command.rules.decisions import Situation
from tieline_connectors.command.watched_file import Content, Hung, Looker, content_of, engaged

log = logging.getLogger(__name__)

_FIRST_WAIT = 5.0
"""Seconds at the start that a policy is waited for while somebody writes it."""


class Surroundings:
    """Asked before every decision, from both threads of a task; looks at the files that decide.

    A look that gets no answer blocks nobody for long: the last good policy holds, and the kill switch is
    engaged. ``count`` gets the names of what has happened to them (`Measures`).
    """

    def __init__(self, config: CommandSinkConfig, shown: Callable[[], Now] = clocks) -> None:
        """``shown``: what the clocks say. Raises ``ConfigError`` on a policy that is wrong."""
        self.count: Callable[[str, int], None] = lambda name, number: None
        self._config = config
        self._terms = config.terms()
        stale = self._terms.max_age + self._terms.max_clock_skew
        watch = ClockWatch(config.clock_believe_ms * 1000, stale, self._terms.built_at)
        word = Word.beside(config.audit_file)
        self.clock = WallClock(
            watch, shown, lambda shown: vouched(shown, word), lambda name, number: self.count(name, number)
        )
        self.now = self.clock.now
        self._keys = config.signing_keys()
        self._lock = threading.Lock()
        self._changes = PolicyChanges(str(config.policy_file), self._first())
        self._policy: Looker[Content | None] = Looker(
            lambda: content_of(config.policy_file, MAX_BYTES, self._changes.known)
        )
        switch = config.kill_switch_file
        self._switch = None if switch is None else Looker(lambda: engaged(switch))
        self._killed_because: str | None = None

    def situation(self) -> Situation:
        """Everything, now."""
        with self._lock:
            policy, killed = self._current_policy(), self._killed()
        return Situation(self.now(), self._terms, policy, self._keys, killed)

    def _first(self) -> Content:
        until = time.monotonic() + _FIRST_WAIT
        while True:
            content = self._config.policy_content()
            if not content.written:
                return content
            if time.monotonic() > until:
                told = "is being written: no policy is taken before it is whole; start again then"
                raise ConfigError([ConfigProblem(str(self._config.policy_file), "", told)])
            time.sleep(0.05)

    def _current_policy(self) -> InForce:
        event: Event | None = None
        try:
            content = self._policy()
            if content is not None:
                event = self._changes.see(content, self.now().monotonic)
        except OSError as error:
            event = self._changes.cannot_see(error.strerror or str(error))
        except ValueError as error:
            event = self._changes.cannot_see(str(error))
        except Hung:
            event = self._changes.cannot_see("its file system does not answer")
        if event is not None:
            self.count(f"policy.{event.what}", 1)
            level = logging.ERROR if event.what == "wrong" else logging.WARNING
            log.log(level, "%s", event.sentence)
        return self._changes.in_force

    def _killed(self) -> str | None:
        """Why nothing may be written; none: the switch is clearly not engaged."""
        if self._switch is None:
            return None
        try:
            because = self._switch()
        except Hung:
            because = "the file system of its file does not answer"
        if because != self._killed_because:
            if because is None:
                log.warning("the kill switch is not engaged any more")
            else:
                log.error("the kill switch is engaged, nothing is written: %s", because)
                self.count("kill.switch.engaged", 1)
            self._killed_because = because
        return because
