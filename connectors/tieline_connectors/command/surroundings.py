"""What a decision depends on beside the command: clocks, kill switch, policy; as they are at this moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from tieline.api import ConfigError
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.decisions import Now, Situation
from tieline_connectors.command.policy import Policy

log = logging.getLogger(__name__)


def clocks() -> Now:
    """Both clocks of this machine."""
    return Now(time.time_ns() // 1000, time.monotonic_ns() // 1000)


class Surroundings:
    """Asked before every decision; reads the policy again when its file has changed.

    A policy that has become wrong is told, and the last good one holds: the plant keeps its rules.
    """

    def __init__(self, config: CommandSinkConfig, now: Callable[[], Now] = clocks) -> None:
        """Raises ``ConfigError`` on a policy that is wrong from the beginning."""
        self.now = now
        self._config = config
        self._terms = config.terms()
        self._keys = config.signing_keys()
        self._stamp = _stamp(config.policy_file)
        self._policy = config.policy()

    def situation(self) -> Situation:
        """Everything, now."""
        return Situation(
            self.now(),
            self._terms,
            self._current_policy(),
            self._keys,
            self._killed(),
        )

    def _current_policy(self) -> Policy:
        stamp = _stamp(self._config.policy_file)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._policy = self._config.policy()
                log.warning("the policy has changed, the new one holds from now on")
            except ConfigError as error:
                log.error("the policy has changed and is wrong, the last good one still holds: %s", error)
        return self._policy

    def _killed(self) -> str | None:
        """Why nothing may be written; a switch that cannot be looked at counts as engaged."""
        path = self._config.kill_switch_file
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                return file.readline(200).decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"the file of the switch cannot be read ({error.strerror})"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
