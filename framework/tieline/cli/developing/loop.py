"""Runs the author's file, carries records in or out, and reloads it when a file that it needs changes."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from tieline.api import RetriableError, StartupError
from tieline.broker.port import Broker, TopicReader
from tieline.broker.records import ProducerRecord, Unit
from tieline.cli.connection import BrokerOptions, open_session, say
from tieline.cli.consuming.screen import RecordPrinter, stdout_closed
from tieline.cli.developing.author_file import AuthorClass, AuthorFile
from tieline.cli.developing.watched_files import Version, WatchedFiles
from tieline.cli.developing.worker import TOPIC, DevWorker
from tieline.topics.decoder import Decoder, ValueFormat

_PAUSE = 0.05  # seconds between two looks at the file and the worker
_IDLE = 1.0  # seconds without a record after which a source is idle
_BATCH = 500
_NOT_STARTED = 2


class DevSettings(NamedTuple):
    """The connector's settings: how to read them, and the files from which they come."""

    read: Callable[[], Mapping[str, str]]
    """Raises ``StartupError``."""
    files: Sequence[Path]


class DevLoop:
    """One session. Offsets and records live in ``folder``, and outlive a reload."""

    def __init__(
        self, folder: Path, path: Path, class_name: str | None, settings: DevSettings, once: bool
    ) -> None:
        self._file = AuthorFile(path)
        self._class_name = class_name
        self._settings = settings
        self._once = once
        self._worker = DevWorker(folder, self._file, say)
        self._watched = WatchedFiles([self._file.path, *settings.files])
        self._imported: Mapping[Path, Version] = {}
        self._status = 0

    def classify(self) -> AuthorClass:
        """Return the class that the file holds now. Raises ``StartupError``."""
        return self._file.find(self._class_name)

    def run_source(self, author_class: AuthorClass, screen: RecordPrinter) -> int:
        """Print the records of a source until it is interrupted; return the exit status.

        Raises ``StartupError`` if the settings cannot be read.
        """
        self._worker.start(author_class, self._settings.read())
        try:
            with open_session(self._log(), make=True) as session:
                shown = _Records(session.broker, screen)
                last = time.monotonic()
                while not stdout_closed():
                    if shown.show():
                        last = time.monotonic()
                    elif self._once and self._ended(last):
                        break
                    self._look(author_class)
        finally:
            self._stop()
        return self._status

    def run_sink(self, author_class: AuthorClass, lines: IO[bytes]) -> int:
        """Feed a sink with lines until they end; return the exit status.

        Raises ``StartupError`` if the settings cannot be read.
        """
        self._worker.start(author_class, self._settings.read())
        try:
            with open_session(self._log(), make=True) as session:
                feed = _Feed(session.broker, lines)
                while True:
                    if not feed.carry() and feed.ended and self._delivered(feed.sent):
                        break
                    if self._status and self._once:
                        break
                    self._look(author_class)
        finally:
            self._stop()
        return self._status

    def _log(self) -> BrokerOptions:
        return BrokerOptions(data_dir=self._worker.data_dir)

    def _look(self, author_class: AuthorClass) -> None:
        """Reload when a file has changed; notice a worker that has ended."""
        time.sleep(_PAUSE)
        if self._worker.files is not self._imported:
            self._imported = self._worker.files
            self._watched.imported(self._imported)
        changed = self._watched.changed()
        if changed is not None:
            self._reload(author_class, changed)
        elif not self._worker.running and not self._status:
            self._status = self._worker.stop() or 1  # it ends only if it fails
            self._wait_for_change()

    def _reload(self, author_class: AuthorClass, changed: Path) -> None:
        say(f"{changed.name} has changed: reloading")
        self._worker.stop()
        self._status = 0
        try:
            settings = self._settings.read()
        except StartupError as error:
            say(str(error), error=True)
            self._status = _NOT_STARTED
            self._wait_for_change()
        else:
            self._worker.start(author_class, settings)

    def _wait_for_change(self) -> None:
        if not self._once:
            say("it has stopped; change a file, and it starts again (Ctrl-C ends)", error=True)

    def _ended(self, last: float) -> bool:
        """Whether a source has nothing more to give, or has failed."""
        return bool(self._status) or (self._worker.idle and time.monotonic() - last > _IDLE)

    def _delivered(self, sent: int) -> bool:
        return not sent or (self._worker.idle and self._worker.handled >= sent) or bool(self._status)

    def _stop(self) -> None:
        self._status = self._worker.stop() or self._status


class _Records:
    """Prints every record of every topic of the log."""

    def __init__(self, broker: Broker, screen: RecordPrinter) -> None:
        self._broker = broker
        self._screen = screen
        self._decoder = Decoder(ValueFormat.AUTO, broker, None)
        self._readers: dict[str, TopicReader] = {}

    def show(self) -> bool:
        """Print what is new; return whether there was anything."""
        is_new = False
        with suppress(RetriableError):  # the worker creates its log right now
            for topic in self._broker.topic_names():
                if topic not in self._readers and not topic.startswith("_"):
                    self._readers[topic] = self._broker.reader(topic, since=0)
            for reader in self._readers.values():
                if records := reader.poll(_BATCH, 0):
                    self._screen.show(self._decoder.decode(records))
                    is_new = True
        return is_new


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
