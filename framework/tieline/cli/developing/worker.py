"""Starts, watches and stops the worker process of ``tieline dev``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from tieline.cli.developing.author_file import AuthorClass, AuthorFile
from tieline.cli.developing.child import AUTHOR, FILES, NEXT_LINE
from tieline.cli.developing.watched_files import Version
from tieline.plugins.discovery import SOURCES
from tieline.plugins.unpackaged import write_entry_points

_NAME = "dev"
TOPIC = "dev"
"""What a sink reads."""
_STOP_TIMEOUT = 10.0


class DevWorker:
    """One version of the author's file in a worker process. Offsets outlive it, in ``folder``."""

    def __init__(self, folder: Path, file: AuthorFile, say: Callable[[str], None]) -> None:
        self.data_dir = folder / "data"
        self.ledger: Mapping[str, Any] = {}
        self.files: Mapping[Path, Version] = {}
        """The local files that the process has imported, each with its version at that time."""
        self._folder = folder
        self._file = file
        self._say = say
        self._handled_before = 0
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._pipe: int | None = None

    def start(self, author_class: AuthorClass, settings: Mapping[str, str]) -> None:
        """Start a worker with this class. ``settings`` are the connector's own."""
        self._handled_before, self.ledger, self.files = self.handled, {}, {}
        is_source = author_class.group == SOURCES
        plugin = self._folder / f"plugin-{author_class.group}-{author_class.name}"
        if not plugin.exists():
            target = f"{self._file.module}:{author_class.name}"
            write_entry_points(plugin, "tieline-dev", {author_class.group: {_NAME: target}})
        worker = {
            "data.dir": str(self.data_dir),
            "log.format": "json",
            "progress.interval.ms": "100",
            "offset.flush.interval.ms": "200",
            "value.converter": "json",
        }
        connector = {
            "name": self._file.path.stem,
            "restart.enabled": "false",  # the author sees a failure at once, and corrects the file
            **({} if is_source else {"topics": TOPIC}),
            **settings,
        }
        files = [
            self._write("worker", worker),
            self._write("settings", {**connector, "connector.class": _NAME}),
        ]
        path = [str(plugin), str(self._file.folder), os.environ.get("PYTHONPATH", "")]
        self._close_pipe()
        child_end, self._pipe = os.pipe()  # nothing is written: its end is the end of this process
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tieline.cli.developing.child"),
                *(str(self._file.path), author_class.name, *map(str, files), str(child_end)),
            ],
            pass_fds=[child_end],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr if is_source else None,  # a source's records alone are on standard output
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, path)),
                "PYTHONUNBUFFERED": "1",
            },
        )
        os.close(child_end)
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,), daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether its process still runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def idle(self) -> bool:
        """Whether its task runs, and nothing is on its way."""
        ledger = self.ledger
        return bool(
            ledger.get("state") == "RUNNING" and not ledger.get("in_flight") and not ledger.get("lag")
        )

    @property
    def handled(self) -> int:
        """How many records the task has handled, in all versions of the file."""
        return self._handled_before + self._handled_now

    def stop(self) -> int:
        """Stop it in an orderly way, or kill it; return its exit status."""
        if self._process is None or self._reader is None:
            return 0
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._say(f"it did not stop within {_STOP_TIMEOUT:g} s, and is killed: interrupt ends a call")
                self._process.kill()
        self._reader.join(_STOP_TIMEOUT)
        self._close_pipe()
        return self._process.wait()

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    @property
    def _handled_now(self) -> int:
        return int(self.ledger.get("received") or 0) - int(self.ledger.get("in_flight") or 0)

    def _write(self, name: str, settings: Mapping[str, str]) -> Path:
        path = self._folder / f"{name}.json"
        path.write_text(json.dumps(dict(settings)), "utf-8")
        return path

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            if line.startswith(AUTHOR):
                self._say(line.removeprefix(AUTHOR).rstrip("\n").replace(NEXT_LINE, "\n"))
                continue
            if line.startswith(FILES):
                versions = json.loads(line.removeprefix(FILES))
                self.files = {Path(path): (modified, size) for path, modified, size in versions}
                continue
            try:
                event = json.loads(line)
            except ValueError:
                self._say(line.rstrip("\n"))
                continue
            self._take(event)

    def _take(self, event: Mapping[str, Any]) -> None:
        ledgers = event.get("ledger")
        if isinstance(ledgers, dict):
            self.ledger = next(iter(ledgers.values()), {})
        logger = str(event.get("logger", ""))
        is_own = not logger.startswith(("tieline.", "py.warnings"))
        if event.get("level") in ("warning", "error", "critical") or is_own:
            self._say(f"{event.get('level')}: {event.get('event')}")
