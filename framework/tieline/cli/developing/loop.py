"""Runs the author's file, carries records in or out, and reloads the file when it changes."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from tieline.api import RetriableError
from tieline.broker.port import Broker, TopicReader
from tieline.broker.records import ProducerRecord, Unit
from tieline.cli.connection import BrokerOptions, open_session, say
from tieline.cli.consuming.screen import RecordPrinter, stdout_closed
from tieline.cli.developing.author_file import AuthorClass, AuthorFile
from tieline.cli.developing.worker import TOPIC, DevWorker
from tieline.topics.decoder import Decoder, ValueFormat

_PAUSE = 0.05  # seconds between two looks at the file and the worker
_IDLE = 1.0  # seconds without a record after which a source is idle
_BATCH = 500


class DevLoop:
    """One session. Offsets and records live in ``folder``, and outlive a reload."""

    def __init__(
        self, folder: Path, path: Path, class_name: str | None, settings: Mapping[str, str], once: bool
    ) -> None:
        self._file = AuthorFile(path)
        self._class_name = class_name
        self._settings = settings
        self._once = once
        self._worker = DevWorker(folder, self._file, say)
        self._seen = self._version()
        self._failed = False

    def classify(self) -> AuthorClass:
        """Return the class that the file holds now. Raises ``StartupError``."""
        return self._file.find(self._class_name)

    def run_source(self, found: AuthorClass, screen: RecordPrinter) -> bool:
        """Print the records of a source until it is interrupted; return whether all went well."""
        self._worker.start(found, self._settings)
        try:
            with open_session(self._log(), make=True) as session:
                shown = _Records(session.broker, screen)
                last = time.monotonic()
                while not stdout_closed():
                    if shown.show():
                        last = time.monotonic()
                    elif self._once and self._ended(last):
                        break
                    self._look(found)
        finally:
            self._stop()
        return not self._failed

    def run_sink(self, found: AuthorClass, lines: IO[bytes]) -> bool:
        """Feed a sink with lines until they end; return whether all was delivered."""
        self._worker.start(found, self._settings)
        try:
            with open_session(self._log(), make=True) as session:
                feed = _Feed(session.broker, lines)
                while True:
                    if not feed.carry() and feed.ended and self._delivered(feed.sent):
                        break
                    if self._failed and self._once:
                        break
                    self._look(found)
        finally:
            self._stop()
        return not self._failed

    def _log(self) -> BrokerOptions:
        return BrokerOptions(data_dir=self._worker.data_dir)

    def _look(self, found: AuthorClass) -> None:
        """Reload a changed file; notice a worker that has ended."""
        time.sleep(_PAUSE)
        version = self._version()
        if version == self._seen:
            if not self._worker.running and not self._failed:
                self._failed = True
                self._worker.stop()
                if not self._once:
                    say("it has stopped; change the file, and it starts again (Ctrl-C ends)", error=True)
            return
        self._seen = version
        say(f"{self._file.path.name} has changed: reloading")
        self._worker.stop()
        self._failed = False
        self._worker.start(found, self._settings)

    def _ended(self, last: float) -> bool:
        """Whether a source has nothing more to give, or has failed."""
        return self._failed or (self._worker.idle and time.monotonic() - last > _IDLE)

    def _delivered(self, sent: int) -> bool:
        return not sent or (self._worker.idle and self._worker.handled >= sent) or self._failed

    def _stop(self) -> None:
        status = self._worker.stop()
        self._failed = self._failed or status != 0

    def _version(self) -> tuple[int, int]:
        """Return what changes when the author saves the file."""
        try:
            status = self._file.path.stat()
        except OSError:  # an editor may replace it
            return getattr(self, "_seen", (0, 0))
        return status.st_mtime_ns, status.st_size


class _Records:
    """Prints every record of every topic of the log."""

    def __init__(self, broker: Broker, screen: RecordPrinter) -> None:
        self._broker = broker
        self._screen = screen
        self._decoder = Decoder(ValueFormat.AUTO, broker, None)
        self._readers: dict[str, TopicReader] = {}

    def show(self) -> bool:
        """Print what is new; return whether there was anything."""
        found = False
        with suppress(RetriableError):  # the worker creates its log right now
            for topic in self._broker.topic_names():
                if topic not in self._readers and not topic.startswith("_"):
                    self._readers[topic] = self._broker.reader(topic, since=0)
            for reader in self._readers.values():
                if records := reader.poll(_BATCH, 0):
                    self._screen.show(self._decoder.decode(records))
                    found = True
        return found


class _Feed:
    """Sends lines into the topic that the sink reads: JSON as it is, other text as a JSON string."""

    def __init__(self, broker: Broker, lines: IO[bytes]) -> None:
        broker.create_topic(TOPIC)
        self._producer = broker.producer("dev", {})
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.sent = 0
        self.ended = False
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def carry(self) -> bool:
        """Send the lines that have come; return whether there were any."""
        values: list[bytes] = []
        while not self.ended and len(values) < _BATCH:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                break
            if line is None:
                self.ended = True
            elif line.strip():
                values.append(_as_json(line))
        if values:
            self._producer.send(Unit([ProducerRecord(TOPIC, value) for value in values]))
            while not self._producer.poll(0.1):
                pass
            self.sent += len(values)
        return bool(values)

    def _read(self, lines: IO[bytes]) -> None:
        for line in lines:
            self._lines.put(line)
        self._lines.put(None)


def _as_json(line: bytes) -> bytes:
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    try:
        json.loads(text)
    except ValueError:
        return json.dumps(text).encode()
    return text.encode()
