"""Read what a decision depends on beside the command: clocks, kill switch and policy, as they are now."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from tieline.api import ConfigError, ConfigProblem
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.execution.clock_sources import ClockConfirmation, is_clock_confirmed
from tieline_connectors.command.execution.wall_clock import WallClock, read_clocks
from tieline_connectors.command.model.clock import ClockWatch, Now
from tieline_connectors.command.policy.changes import EffectivePolicy, PolicyChanges, PolicyEvent
from tieline_connectors.command.policy.file import MAX_BYTES
from tieline_connectors.command.rules.decisions import Conditions
from tieline_connectors.command.watched_file import (
    BoundedCall,
    Content,
    FileTimeoutError,
    kill_switch_reason,
    read_content,
)

log = logging.getLogger(__name__)

_FIRST_WAIT = 5.0
"""Seconds to wait at the start for a policy file that is being written."""


class ConditionMonitor:
    """Reads clock, policy and kill switch before every decision. Called by both threads of a task.

    A file system that does not answer blocks for a short time only: then the last good policy holds, and the
    kill switch is engaged. ``count`` gets the names of events, such as ``policy.changed``.
    """

    def __init__(
        self,
        config: CommandSinkConfig,
        count: Callable[[str, int], None],
        clocks: Callable[[], Now] = read_clocks,
    ) -> None:
        """``clocks`` reads wall and monotonic clock. Raises ``ConfigError`` if the policy is wrong."""
        self._count = count
        self._config = config
        self._settings = config.rule_settings()
        stale = self._settings.max_age + self._settings.max_clock_skew
        watch = ClockWatch(config.clock_believe_ms * 1000, stale, self._settings.built_at)
        confirmation = ClockConfirmation.path_beside(config.audit_file)
        self.clock = WallClock(watch, clocks, lambda now: is_clock_confirmed(now, confirmation), count)
        self.now = self.clock.now
        self._keys = config.signing_keys()
        self._lock = threading.Lock()
        self._changes = PolicyChanges(str(config.policy_file), self._first_content())
        self._policy: BoundedCall[Content | None] = BoundedCall(
            lambda: read_content(config.policy_file, MAX_BYTES, self._changes.known)
        )
        switch = config.kill_switch_file
        self._switch = None if switch is None else BoundedCall(lambda: kill_switch_reason(switch))
        self._killed_because: str | None = None

    def current(self) -> Conditions:
        """Return all conditions of this moment."""
        with self._lock:
            policy, killed = self._current_policy(), self._why_killed()
        return Conditions(self.now(), self._settings, policy, self._keys, killed)

    def _first_content(self) -> Content:
        until = time.monotonic() + _FIRST_WAIT
        while True:
            content = self._config.policy_content()
            if not content.written:
                return content
            if time.monotonic() > until:
                message = "is being written: a policy must be complete before the start; start again then"
                raise ConfigError([ConfigProblem(str(self._config.policy_file), "", message)])
            time.sleep(0.05)

    def _current_policy(self) -> EffectivePolicy:
        event: PolicyEvent | None = None
        try:
            content = self._policy()
            if content is not None:
                event = self._changes.update(content, self.now().monotonic)
        except OSError as error:
            event = self._changes.unreadable(error.strerror or str(error))
        except ValueError as error:
            event = self._changes.unreadable(str(error))
        except FileTimeoutError:
            event = self._changes.unreadable("its file system does not answer")
        if event is not None:
            self._count(f"policy.{event.kind}", 1)
            level = logging.ERROR if event.kind == "wrong" else logging.WARNING
            log.log(level, "%s", event.message)
        return self._changes.in_force

    def _why_killed(self) -> str | None:
        """Return why nothing may be written; ``None`` only if the kill switch is certainly not engaged."""
        if self._switch is None:
            return None
        try:
            reason = self._switch()
        except FileTimeoutError:
            reason = "the file system of its file does not answer"
        if reason != self._killed_because:
            if reason is None:
                log.warning("the kill switch is released")
            else:
                log.error("the kill switch is engaged, nothing is written: %s", reason)
                self._count("kill.switch.engaged", 1)
            self._killed_because = reason
        return reason
