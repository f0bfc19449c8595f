"""Find out the state of a platform: whether its agents answer, and what points read."""

from __future__ import annotations

import logging

from tieline_connectors.command.execution import writer
from tieline_connectors.command.execution.conditions import ConditionMonitor
from tieline_connectors.command.execution.errors import UnavailableError, UncertainError
from tieline_connectors.command.execution.platform_client import Platform
from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.rules.decisions import Readings

log = logging.getLogger(__name__)

_RETRY_AFTER = 500_000
"""How long after an agent did not answer it is called again; microseconds."""
_FIRST_PAUSE, _LONGEST_PAUSE = 500_000, 30_000_000
"""How long a device that does not answer is not read again, doubled up to the longest; microseconds."""


class WarnOnce:
    """Logs a warning about a subject only if it differs from the last one about it."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def warn(self, subject: str, message: str) -> None:
        """Log the message, unless it is the last one about this subject."""
        if self._last.get(subject) != message:
            self._last[subject] = message
            log.warning(message)

    def reset(self, subject: str) -> None:
        """Log the next message about this subject, even if it is the same."""
        self._last.pop(subject, None)


class PlatformState:
    """Pings the platform's agents, and reads points before writes. Used by the scheduler's thread."""

    def __init__(self, platform: Platform, monitor: ConditionMonitor, warnings: WarnOnce) -> None:
        self._platform = platform
        self._monitor = monitor
        self._warnings = warnings
        self._unavailable_until = 0
        self._silent: dict[str, tuple[int, int]] = {}

    def read_before_write(self, entry: LedgerEntry) -> Readings | None:
        """Return what its points read before a write; ``None`` if a read was not answered: do not write.

        A driver that has just not answered may perform a write at any later time, also after its expiry. If
        only these devices do not answer, commands of other devices are executed meanwhile.
        """
        now, devices = self._monitor.now().monotonic, entry.command.devices
        if any(now < self._silent[device][0] for device in devices if device in self._silent):
            return None
        if not self._agents_answer():
            return None
        try:
            readings = writer.read(self._platform, [w.point for w in entry.command.writes])
        except UnavailableError as error:
            self._mark_unavailable(error)
            return None
        except UncertainError as error:
            if self._agents_answer(ping=True):
                self._warnings.warn("silent", f"commands of {', '.join(sorted(devices))} wait: {error}")
                for device in devices:
                    pause = min(self._silent.get(device, (0, _FIRST_PAUSE))[1] * 2, _LONGEST_PAUSE)
                    self._silent[device] = self._monitor.now().monotonic + pause, pause
            return None
        for device in devices:
            self._silent.pop(device, None)
        return None if self._platform.recently_found and None in readings.values() else readings

    def read_points(self, entry: LedgerEntry) -> Readings | None:
        """Return what its points read; ``None`` if the platform is unavailable: do nothing with the entry.

        A driver that starts answers a moment before it knows its devices. So right after a connection is
        made, a point that cannot be read may be one that the driver does not know yet.
        """
        if not self._agents_answer():
            return None
        readings = writer.try_read(self._platform, [w.point for w in entry.command.writes])
        if None in readings.values() and not self._agents_answer(ping=True):  # it was lost meanwhile
            return None
        return None if self._platform.recently_found and None in readings.values() else readings

    def _agents_answer(self, ping: bool = False) -> bool:
        """Return whether the agents that write answer; ``ping``: they are called now in any case."""
        if self._monitor.now().monotonic < self._unavailable_until:
            return False
        try:
            if ping:
                self._platform.ping_agents()
            else:
                self._platform.connect()
        except UnavailableError as error:
            self._mark_unavailable(error)
            return False
        self._warnings.reset("platform")
        return True

    def _mark_unavailable(self, error: UnavailableError) -> None:
        self._warnings.warn("platform", f"commands wait: {error}")
        self._unavailable_until = self._monitor.now().monotonic + _RETRY_AFTER
