"""A file with a worker's metrics, for the textfile collector of Prometheus' node exporter."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

_READABLE = 0o644  # the node exporter runs as another user


class MetricsTextfile:
    """Replaces the file at each call of ``write``. One thread uses it.

    The node exporter reads ``*.prom`` at any moment, so a new file is completed beside the old one, under
    a name that it ignores, and then renamed. ``render`` returns the text.
    """

    def __init__(self, path: Path, render: Callable[[], bytes]) -> None:
        self._path = path
        self._new = path.with_name(f".{path.name}.{os.getpid()}.new")
        self._render = render
        self._failed = False

    def write(self) -> None:
        """Replace the file. Never raises: a worker works without it."""
        try:
            text = self._render()
            descriptor = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _READABLE)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, _READABLE)  # for any umask
                file.write(text)
            os.replace(self._new, self._path)
        except OSError as error:
            if not self._failed:
                log.warning("the metrics cannot be written to %s: %s", self._path, error)
            self._failed = True
        else:
            self._failed = False

    def remove(self) -> None:
        """Remove the file, so that the metrics end with the worker."""
        for path in (self._new, self._path):
            with suppress(OSError):
                path.unlink()
