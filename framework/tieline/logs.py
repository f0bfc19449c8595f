"""Structured logs: lines of JSON or for people, with connector and task, without secrets."""

from __future__ import annotations

import base64
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import structlog
import structlog.tracebacks

from tieline.log_limits import RepeatFilter
from tieline.log_queue import QueuedHandler
from tieline.recent_log import BoundedFile, is_kept

_MASK = "********"
_MIN_ENCODED = 8
_URL_SAFE = str.maketrans("+/", "-_")
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)  # a local variable may be a secret
)


class Redaction:
    """Masks every known secret in everything that is logged."""

    def __init__(self) -> None:
        self._secrets: tuple[str, ...] = ()

    def add(self, secrets: Iterable[str]) -> None:
        """Mask these texts from now on, also as Python, JSON or a URL write them.

        Longer ones are masked first, so that none shows through another. A text of less than 4 characters is
        not masked: that would only garble the log, and show where it occurs.
        """
        texts = [secret for secret in secrets if len(secret) >= 4]
        known = {*self._secrets, *(form for text in texts for form in _written_forms(text))}
        self._secrets = tuple(sorted(known, key=len, reverse=True))

    def clean(self, value: Any) -> Any:
        """Return the same value without secrets, also inside lists and maps."""
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, _MASK)
            return value
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, dict):
            return {self.clean(key): self.clean(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.clean(item) for item in value]
        return self.clean(str(value))

    def __call__(self, _logger: Any, _method: str, event: Any) -> Any:
        """Clean an event, as a structlog processor."""
        return {key: item if key.startswith("_") else self.clean(item) for key, item in event.items()}


def _written_forms(text: str) -> set[str]:
    forms = {text, repr(text)[1:-1], json.dumps(text)[1:-1], quote(text, safe=""), quote_plus(text)}
    data = text.encode("utf-8", "surrogatepass")
    if len(data) >= _MIN_ENCODED:  # a short one would mask what only looks like it
        forms |= {data.hex(), *_base64_forms(data)}
    return forms


def _base64_forms(data: bytes) -> Iterator[str]:
    """Yield what base64 makes of a text wherever it begins in a longer one, such as ``user:password``."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data).decode("ascii").rstrip("=")
        skipped = (before * 8 + 5) // 6  # characters that also depend on what comes before
        whole = (before + len(data)) * 8 // 6  # and after
        core = encoded[skipped:whole]
        yield core
        yield core.translate(_URL_SAFE)


redaction = Redaction()
"""The redaction of this process. The runtime adds every secret setting that it reads."""

repeats = RepeatFilter()
"""The filter of this process."""


def set_up(*, style: str, level: str) -> None:
    """Send every log line of the process to standard error, in the style ``json`` or ``human``.

    A thread that logs never waits for standard error; see ``QueuedHandler``.
    """
    last: list[Any] = (
        [_TRACEBACKS, redaction, structlog.processors.JSONRenderer(default=str)]
        if style == "json"
        else [
            structlog.processors.format_exc_info,
            redaction,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = QueuedHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.setLevel(level)
    repeats.clear()
    handler.addFilter(repeats)
    root = logging.getLogger()
    for former in root.handlers:
        if isinstance(former, QueuedHandler):
            former.close()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("pymongo", "httpx", "httpcore", "stevedore", "uvicorn"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    # tieline.broker.kafka.handshake examines librdkafka's lines at INFO, even if they are not written.
    logging.getLogger("tieline.kafka").setLevel(min(logging.INFO, root.level))


def keep_recent(path: Path) -> None:
    """Also keep the newest lines in a bounded file, as JSON; see ``tieline.recent_log``. After ``set_up``."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *(_TRACEBACKS, redaction, structlog.processors.JSONRenderer(default=str)),
        ],
    )
    handler = QueuedHandler(BoundedFile(path))
    handler.setFormatter(formatter)
    handler.addFilter(is_kept)
    handler.addFilter(repeats)
    logging.getLogger().addHandler(handler)


def _shared() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


@contextmanager
def about(**names: Any) -> Iterator[None]:
    """Add these names (connector, task) to every line that this thread logs inside."""
    with structlog.contextvars.bound_contextvars(**names):
        yield
