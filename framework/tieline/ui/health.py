"""What is abnormal about a connector: for the overview and the alarms."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from tieline.api.pages import RunningConnector
from tieline.times import iso_ms
from tieline.ui.sampler import Sample

Ledger = Mapping[str, Any]

FULL = 0.8
"""The part of a spool from which it counts as almost full."""
_RECENT = 600.0  # seconds in which dropped records are recent


class Problem(NamedTuple):
    """Something abnormal. ``key`` is stable while its cause lasts; ``since_ms`` is ``None`` if unknown."""

    key: str
    severity: Literal["warning", "critical"]
    text: str
    since_ms: int | None = None


class SpoolUse(NamedTuple):
    """What waits in the spools of a source; ``limit`` is what fits, 0 if unknown."""

    records: int | None
    used: int | None
    limit: int

    @property
    def percent(self) -> int | None:
        """How full the spools are."""
        if self.used is None or not self.limit:
            return None
        return min(100, self.used * 100 // self.limit)


class Health:
    """Finds what is abnormal about a worker's connectors. Any thread may call it.

    ``spool_limits`` returns by connector how many bytes fit into its spools. ``broker``: what its outages are
    reported under.
    """

    def __init__(
        self,
        spool_limits: Callable[[], Mapping[str, int]],
        broker: str,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broker = broker
        self._spool_limits = spool_limits
        self._now = now
        self._lock = threading.Lock()
        self._totals: dict[str, int] = {}
        self._dropped: dict[str, deque[tuple[float, int]]] = {}

    def note(self, sample: Sample) -> None:
        """Remember what has been dropped since the sample before."""
        with self._lock:
            for name, ledger in sample.ledgers.items():
                total = count_dropped(ledger)
                before = self._totals.get(name, 0)
                self._totals[name] = total
                if total != before:
                    # A recreated task counts from 0 again.
                    lost = total - before if total > before else total
                    self._dropped.setdefault(name, deque()).append((self._now(), lost))

    def spool(self, name: str, ledger: Ledger) -> SpoolUse | None:
        """Return what waits in the spools of a source, or ``None`` if it has none."""
        if "spool_records" not in ledger:
            return None
        return SpoolUse(ledger["spool_records"], ledger["spool_bytes"], self._spool_limits().get(name, 0))

    def is_connected(self, connector: RunningConnector, ledger: Ledger) -> bool:
        """Return whether a connector's external system is available, as far as its tasks report it.

        A sink is also said not to be connected to a broker or a topic that is unavailable.
        """
        inner = {self._broker, *(f"the topic {topic}" for topic in connector.topics)}
        return all(outage["to"] in inner for outage in ledger.get("not_connected", ()))

    def problems(self, name: str, ledger: Ledger) -> list[Problem]:
        """Return what is abnormal about a connector, critical problems first."""
        problems = problems_of(ledger, self.spool(name, ledger), self._recently_dropped(name))
        return sorted(problems, key=lambda problem: problem.severity != "critical")

    def _recently_dropped(self, name: str) -> int:
        with self._lock:
            recent = self._dropped.get(name, deque())
            while recent and self._now() - recent[0][0] > _RECENT:
                recent.popleft()
            return sum(number for _, number in recent)


def problems_of(ledger: Ledger, spool: SpoolUse | None, dropped: int) -> list[Problem]:
    """Return what is abnormal about a connector; pure. ``dropped``: records in the last ten minutes."""
    problems = _failures(ledger)
    for outage in ledger.get("not_connected", ()):
        text = f"Not connected to {outage['to']}: {outage['because']}. Records wait; the worker retries."
        problems.append(Problem(f"outage.{outage['to']}", "warning", text, iso_ms(outage["since"])))
    if spool is not None and spool.percent is not None and spool.percent > 100 * FULL:
        text = (
            f"The spool is {spool.percent} % full. Records are dropped when it is full: let the broker accept"
            " records again, or raise spool.max.bytes."
        )
        problems.append(Problem("spool", "warning", text))
    if dropped:
        kinds = ", ".join(sorted(name for name, number in _dropped_counters(ledger).items() if number))
        text = (
            f"{dropped} records were dropped in the last 10 minutes ({kinds}). The worker's log says which"
            " limit was reached."
        )
        problems.append(Problem("dropped", "critical", text))
    if mismatch := ledger.get("mismatch"):
        text = (
            f"The ledger differs from what has been passed by {mismatch} records. Compare the store with the"
            " topic: records may be missing or counted twice. The worker's log names the partition."
        )
        problems.append(Problem("mismatch", "critical", text))
    return problems


def _failures(ledger: Ledger) -> list[Problem]:
    """Return what has failed, and what becomes of it."""
    state = ledger.get("state")
    reason = str(ledger.get("trace", "")).partition("\n")[0]
    if state == "RESTARTING":
        number = ledger.get("attempts", 0) + 1
        text = f"A task has failed, and restarts by itself (restart {number}): {reason}"
        return [Problem("restarting", "warning", text)]
    if state != "FAILED":
        return []
    due = ledger.get("next_attempt_ms")
    fix = "Correct the cause and restart the worker."
    if due is not None:
        at = dt.datetime.fromtimestamp(due / 1000, dt.timezone.utc).strftime("%H:%M UTC")
        restarts = f"after {ledger.get('attempts')} restarts its breaker is open"
        fix = f"Correct the cause: {restarts}, and the next attempt is at {at}."
    return [Problem("failed", "critical", f"A task has failed: {reason} {fix}")]


def count_dropped(ledger: Ledger) -> int:
    """Return how many records a connector has dropped."""
    return sum(_dropped_counters(ledger).values())


def _dropped_counters(ledger: Ledger) -> dict[str, int]:
    counters = ledger.get("counters", {})
    return {name: number for name, number in counters.items() if name.startswith("dropped")}
