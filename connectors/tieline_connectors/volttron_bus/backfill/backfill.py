"""What the bus source sees of back-fill: it notes what was received, and takes what was recovered."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tieline.api import BACKFILL_HEADER, SourceContext, SourceRecord
from tieline_connectors.volttron_bus.backfill.filler import Filler, FillLimits, Recovered, id_of
from tieline_connectors.volttron_bus.backfill.historian import Historian
from tieline_connectors.volttron_bus.backfill.progress import OpenGap, StopRequestedError
from tieline_connectors.volttron_bus.backfill.received_file import ReceivedFile
from tieline_connectors.volttron_bus.backfill.reception import (
    MAX_DEVICES,
    Anchor,
    Device,
    Reception,
    form_of,
    is_filled,
)
from tieline_connectors.volttron_bus.messages.message import Message

log = logging.getLogger(__name__)

_MAX_READY = 1_000
"""How many recovered readings wait for the source; the filler waits if there are more."""
_WRITE_EVERY = 1.0
"""Seconds between two writes of what was received."""
_SILENCE = 900.0
"""Seconds of a subscription after which a device that published nothing is filled up to its beginning."""


class _Received(NamedTuple):
    session: int
    topic: str
    form: str
    reading: Anchor


class Backfill:
    """Finds gaps in the readings of each device, and fills them from the historian.

    The source's thread calls all methods, except where one says otherwise. What ``poll`` has returned counts
    as received when ``poll`` is called again: the runtime has put it into the spool by then.

    Counters: ``backfill.gaps``, ``backfill.recovered``, ``backfill.unverified``, and those of ``Filler``.
    """

    def __init__(
        self,
        context: SourceContext,
        historian: Historian,
        limits: FillLimits,
        to_record: Callable[[Sequence[bytes]], SourceRecord | None],
        system: str,
        wake: Callable[[], None],
    ) -> None:
        """``wake`` makes a waiting ``poll`` return; the filler's thread calls it. The other arguments are
        those of ``Filler``.
        """
        self._context = context
        self._wake = wake
        name = f"{context.connector}-{context.task}.received"
        self._file = ReceivedFile(context.data_dir / "backfill" / name)
        self._changed = threading.Condition()
        # Guarded by _changed, since the filler's thread uses them, too:
        self._reception = Reception(limits.max_age)
        self._ready: deque[Recovered] = deque()
        self._stopping = False
        self._version = 0
        self._seen_version = -1
        # Of the source's thread alone:
        self._received: list[_Received] = []
        self._returned: list[Recovered] = []
        self._unwritten: dict[str, Device] = {}
        self._written_at = self._checked_at = time.monotonic()
        self._reported: set[str] = set()
        self._filler = Filler(context, historian, self, limits, to_record, system)

    def start(self) -> None:
        """Read what was received before, and start the thread."""
        oldest = time.time_ns() // 1000 - self._reception.max_age
        loaded = self._file.open()
        kept = [device for device in loaded if device.last.time >= oldest or device.gaps]
        for device in kept:
            self._reception.add(device)
        if len(kept) < len(loaded):
            self._file.replace(kept)
        self._filler.start()

    @property
    def failure(self) -> Exception | None:
        """The bug that has ended the filler's thread."""
        return self._filler.failure

    @property
    def has_ready(self) -> bool:
        """Whether ``take`` returns something now."""
        return bool(self._ready) and not self._stopping

    def received(self, session: int, message: Message, record: SourceRecord) -> None:
        """Note a message that ``poll`` returns."""
        if is_filled(message.topic) and (form := form_of(message.body)) and (record_id := id_of(record)):
            reading = Anchor(message.time, record_id)
            self._received.append(_Received(session, message.topic, form, reading))

    def batch_kept(self, session: int, since: int) -> None:
        """Note that the spool has what ``poll`` returned. ``session`` is the newest, since ``since`` (µs).

        ``since`` is 0 while nothing is subscribed.
        """
        now = time.monotonic()
        if self._received or self._returned or now - self._checked_at >= _WRITE_EVERY:
            self._checked_at = now
            self._note(session, since, time.time_ns() // 1000)
        if self._unwritten and now - self._written_at >= _WRITE_EVERY:
            self._write()

    def take(self, limit: int) -> list[SourceRecord]:
        """Return recovered readings, at most ``limit``."""
        records: list[SourceRecord] = []
        with self._changed:
            while self._ready and len(records) < limit and not self._stopping:
                step = self._ready.popleft()
                self._returned.append(step)
                if step.record is not None:
                    mark = b"verified" if step.verified else b"unverified"
                    headers = (*step.record.headers, (BACKFILL_HEADER, mark))
                    records.append(step.record._replace(headers=headers))
            self._changed.notify_all()
        return records

    def interrupt(self) -> None:
        """Stop fetching; any thread may call it. What was not taken yet is fetched again after the start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def stop(self) -> None:
        """End the thread, and write what was received: the spool has it. Always the last call."""
        self.interrupt()
        self._filler.join()
        self._note(0, 0, time.time_ns() // 1000)
        self._write()
        self._file.close()

    # -- what the filler calls ------------------------------------------------------------------------------

    def open_gaps(self) -> Sequence[OpenGap]:
        """Return the gaps that are open now."""
        with self._changed:
            return [
                OpenGap(
                    device.topic, device.path, device.form, gap.start, gap.end, gap.position, gap.verified
                )
                for device, gap in self._reception.gaps()
            ]

    def paths(self) -> Sequence[str]:
        """Return the paths of all devices that are remembered."""
        with self._changed:
            return self._reception.paths()

    def hand_over(self, steps: Sequence[Recovered]) -> None:
        """Hand steps to ``take``; wait while it has many. Raises ``StopRequestedError``."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < _MAX_READY or self._stopping)
            if self._stopping:
                raise StopRequestedError
            self._ready.extend(steps)
        self._wake()

    def wait(self, seconds: float) -> bool:
        """Wait until gaps were opened or closed, at most this long. Return whether to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != self._seen_version or self._stopping, seconds)
            self._seen_version = self._version
            return self._stopping

    # -- the source's thread --------------------------------------------------------------------------------

    def _note(self, session: int, since: int, now: int) -> None:
        """Take over what the spool has, and look for silent devices."""
        with self._changed:
            opened = self._reception.opened
            for received in self._received:
                self._write_later(self._reception.receive(*received, now))
            closed = any(step.closes for step in self._returned)
            for step in self._returned:
                gap = step.gap
                end = gap.end.time if step.closes else None
                self._write_later(
                    self._reception.fill(gap.topic, gap.start.time, step.position, step.verified, end)
                )
            if since and now - since >= _SILENCE * 1_000_000:
                for device in self._reception.end_silence(session, since, now):
                    self._write_later(device)
            opened = self._reception.opened - opened
            if opened or closed:
                self._version += 1
                self._changed.notify_all()
        self._count(opened)
        self._received.clear()
        self._returned.clear()

    def _count(self, opened: int) -> None:
        recovered = [step for step in self._returned if step.record is not None]
        for name, number in (
            ("backfill.gaps", opened),
            ("backfill.recovered", len(recovered)),
            ("backfill.unverified", sum(not step.verified for step in recovered)),
        ):
            if number:
                self._context.count(name, number)
        if self._reception.ignored:
            self._report(
                "devices",
                f"more than {MAX_DEVICES} devices publish; the gaps of further ones are not filled",
            )

    def _write_later(self, device: Device | None) -> None:
        if device is not None:
            self._unwritten[device.topic] = device

    def _write(self) -> None:
        self._file.write(self._unwritten.values())
        self._unwritten.clear()
        self._written_at = time.monotonic()
        if self._file.error:
            self._report(
                "file",
                "what was received cannot be written, and gaps cannot be found after a restart: "
                f"{self._file.error}. Check the disk",
            )

    def _report(self, what: str, text: str) -> None:
        if what not in self._reported:
            self._reported.add(what)
            log.warning("back-fill: %s", text)
