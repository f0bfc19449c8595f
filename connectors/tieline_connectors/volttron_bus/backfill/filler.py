"""The thread that fills gaps: page after page from the historian, at a limited rate.

It yields to what arrives from the bus. Its connection is its own, what it fetched waits in a small queue from
which the source takes only what a batch has room for, and it rests while the spool is half full.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from tieline.api import ID_HEADER, SourceContext, SourceRecord, header
from tieline_connectors.volttron_bus.backfill.historian import (
    Historian,
    HistorianRefusedError,
    HistorianUnavailableError,
)
from tieline_connectors.volttron_bus.backfill.history import InvalidHistoryError, Page, rebuild_message
from tieline_connectors.volttron_bus.backfill.progress import GapStates, OpenGap, Round, StopRequestedError

log = logging.getLogger(__name__)

_CHUNK = 100
"""How many readings are handed over at once."""
_SPOOL_LIMIT = 0.5
"""The share of the spool above which nothing is fetched: what a full spool drops must not be new."""
_LIST_AGE = 30.0
"""Seconds after which the list of topics is fetched again for a device that it does not name."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


class Recovered(NamedTuple):
    """A step in filling a gap: a record or none, and how far the gap is filled once the spool has it."""

    gap: OpenGap
    record: SourceRecord | None
    position: int
    verified: bool | None
    closes: bool = False


class GapStore(Protocol):
    """What the filler needs of the source. All methods may be called from the filler's thread."""

    def open_gaps(self) -> Sequence[OpenGap]:
        """Return the gaps that are open now."""

    def paths(self) -> Sequence[str]:
        """Return the paths of all devices that are remembered."""

    def hand_over(self, steps: Sequence[Recovered]) -> None:
        """Hand steps to the source; wait while it has many. Raises ``StopRequestedError``."""

    def wait(self, seconds: float) -> bool:
        """Wait until gaps were opened or closed, at most this long. Return whether to stop."""


class FillLimits(NamedTuple):
    """Rows in an answer, readings a second, and how far back readings are fetched, in µs."""

    page_size: int
    rate: float
    max_age: int


class Filler:
    """Fills gaps from ``start`` until ``join``, in a thread of its own; ``gaps.wait`` says when to stop.

    ``to_record`` makes a record of the frames of a message, or returns ``None`` if it is filtered.
    ``system``: how the historian is called in messages.

    Counters: ``backfill.invalid``, ``backfill.outside``, ``backfill.expired``.
    """

    def __init__(
        self,
        context: SourceContext,
        historian: Historian,
        gaps: GapStore,
        limits: FillLimits,
        to_record: Callable[[Sequence[bytes]], SourceRecord | None],
        system: str,
    ) -> None:
        self.failure: Exception | None = None
        """The bug that has ended the thread."""
        self._context = context
        self._historian = historian
        self._gaps = gaps
        self._limits = limits
        self._to_record = to_record
        self._system = system
        self._states = GapStates()
        self._round: Round | None = None
        self._points: dict[str, dict[str, str]] = {}
        self._listed_at = float("-inf")
        self._pause, self._not_before = _FIRST_PAUSE, 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        run = contextvars.copy_context().run  # so that the thread's log lines carry connector and task
        self._thread = threading.Thread(target=run, args=(self._run,), name="bus-backfill", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            pause = 0.0
            while not self._gaps.wait(pause):
                pause = self._step()
        except StopRequestedError:
            pass
        except Exception as error:  # noqa: BLE001 - a bug; the task raises it
            self.failure = error
        finally:
            self._historian.close()

    def _step(self) -> float:
        """Work on the gaps that are due; return the seconds until the next step, unless gaps change."""
        gaps = self._gaps.open_gaps()
        self._states.keep(gaps)
        if not gaps:
            if self._round is not None:
                self._round.end()
                self._round = None
                self._historian.close()
                self._forget_list()
            return _LONGEST_PAUSE
        if self._round is None:
            self._round = Round.begin(gaps)
        now = time.monotonic()
        if now < self._not_before:
            return self._not_before - now
        due, seconds = self._states.due(gaps, now)
        for gap in due:
            if not self._try(gap):
                break
        return seconds

    def _try(self, gap: OpenGap) -> bool:
        """Fill a gap as far as the historian allows. Return whether the historian is available."""
        try:
            self._fill(gap)
        except HistorianUnavailableError as error:
            if self._gaps.wait(0):
                raise StopRequestedError from error
            self._context.not_connected(self._system, str(error))
            self._not_before = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            self._forget_list()
            return False
        except (HistorianRefusedError, InvalidHistoryError) as error:
            if isinstance(error, InvalidHistoryError):
                self._context.count("backfill.invalid")
            self._context.connected(self._system)
            self._states.failed(gap, str(error), time.monotonic())
        else:
            self._context.connected(self._system)
            self._pause = _FIRST_PAUSE
        return True

    def _fill(self, gap: OpenGap) -> None:
        state = self._states[gap]
        oldest = time.time_ns() // 1000 - self._limits.max_age
        if gap.end.time < oldest:
            self._context.count("backfill.expired")
            self._close(gap, "it is older than backfill.max.age.ms")
            return
        state.position = max(state.position, oldest)
        points = self._points_of(gap)
        settled = state.is_settled(gap, time.monotonic())
        if not points:
            self._settle(gap, "the historian has no point of this device", settled=settled)
            return
        metadata = self._historian.metadata(points)
        while True:
            self._wait_for_room()
            count = max(2, self._limits.page_size // len(points) // state.divisor)
            page = self._historian.page(points, state.position + 1, gap.end.time + 1, count)
            for name, number in (("backfill.invalid", page.invalid), ("backfill.outside", page.outside)):
                if number:
                    self._context.count(name, number)
            if page.position >= gap.end.time:
                page = page._replace(is_last=True)
            is_complete = page.is_last and gap.end.time in page.readings
            if not self._verify(gap, page, metadata):
                return
            hold_last = page.is_last and not is_complete and not settled
            self._hand_over(gap, page, metadata, hold_last=hold_last)
            if page.is_last:
                break
        if is_complete:
            self._close(gap, "")
        else:
            self._settle(gap, "the historian does not have the reading after it", settled=settled)

    def _verify(self, gap: OpenGap, page: Page, metadata: dict[str, dict[str, Any]]) -> bool:
        """Compare the reading before the gap with the one that the bus had.

        Return false if they differ for the first time: the list of topics may be older than a new point, so
        the gap is tried again with a new one.
        """
        state, before = self._states[gap], gap.start
        if before.id and before.time in page.readings:
            record = self._record(gap, before.time, page.readings[before.time], metadata)
            state.verified = id_of(record) == before.id
            if not state.verified and not state.listed_again:
                state.listed_again = True
                self._forget_list()
                self._states.postpone(gap, time.monotonic())
                return False
        return True

    def _hand_over(
        self, gap: OpenGap, page: Page, metadata: dict[str, dict[str, Any]], *, hold_last: bool
    ) -> None:
        """Hand over the readings of a page. ``hold_last``: the newest one may still lack points."""
        state = self._states[gap]
        times = list(page.readings)
        if hold_last:
            del times[-1:]
        steps = []
        for moment in times:
            if gap.start.time < moment < gap.end.time:
                record = self._record(gap, moment, page.readings[moment], metadata)
                steps.append(Recovered(gap, record, moment, state.verified))
            if len(steps) == _CHUNK:
                self._put(steps)
                steps = []
        self._put(steps)
        if not page.is_last:
            state.position = page.position
        elif times:  # not to the page's end: what the historian stores late comes after them
            state.position = times[-1]

    def _put(self, steps: Sequence[Recovered]) -> None:
        if steps:
            self._gaps.hand_over(steps)
            if self._round is not None:
                self._round.recovered += sum(step.record is not None for step in steps)
            self._rest(len(steps) / self._limits.rate)

    def _record(
        self, gap: OpenGap, moment: int, points: dict[str, Any], metadata: dict[str, dict[str, Any]]
    ) -> SourceRecord | None:
        sender = self._historian.identity
        return self._to_record(rebuild_message(gap.topic, gap.form, moment, points, metadata, sender))

    def _points_of(self, gap: OpenGap) -> dict[str, str]:
        """Return the topics of a gap's device, from a list that is fetched again if it is old."""
        now = time.monotonic()
        if gap.path not in self._points and now - self._listed_at >= _LIST_AGE:
            self._points = self._historian.points(self._gaps.paths())
            self._listed_at = now
        return self._points.get(gap.path, {})

    def _forget_list(self) -> None:
        self._points, self._listed_at = {}, float("-inf")

    def _settle(self, gap: OpenGap, why: str, *, settled: bool) -> None:
        """Try again later, since a historian stores late; close the gap after ten minutes."""
        if settled:
            self._close(gap, why)
        else:
            self._states.postpone(gap, time.monotonic())

    def _close(self, gap: OpenGap, why: str) -> None:
        state = self._states[gap]
        state.closed = True
        complete = not why
        self._context.count("backfill.gaps.complete" if complete else "backfill.gaps.incomplete")
        if self._round is not None:
            self._round.closed(gap, why)
        self._gaps.hand_over([Recovered(gap, None, gap.end.time, state.verified, closes=True)])

    def _wait_for_room(self) -> None:
        while self._context.spool_used > _SPOOL_LIMIT:
            self._rest(1.0)

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._gaps.wait(left):
                raise StopRequestedError


def id_of(record: SourceRecord | None) -> str:
    """Return a record's id as text; empty if it has none."""
    return (record and (header(record, ID_HEADER) or b"").decode()) or ""
