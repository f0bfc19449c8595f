"""Structured logs: JSON lines or human ones, each with connector and task, none with a secret."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

_MASK = "********"


class Redaction:
    """Replaces every known secret in everything that is logged."""

    def __init__(self) -> None:
        self._secrets: tuple[str, ...] = ()

    def add(self, secrets: Iterable[str]) -> None:
        """These texts must never be printed; longest first, so that none shows through another."""
        known = {*self._secrets, *(secret for secret in secrets if len(secret) >= 4)}
        self._secrets = tuple(sorted(known, key=len, reverse=True))

    def clean(self, value: Any) -> Any:
        """The same value without secrets, also inside lists and maps."""
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, _MASK)
            return value
        if isinstance(value, dict):
            return {key: self.clean(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.clean(item) for item in value]
        return value

    def __call__(self, _logger: Any, _method: str, event: Any) -> Any:
        """A structlog processor."""
        return {key: item if key.startswith("_") else self.clean(item) for key, item in event.items()}


redaction = Redaction()
"""The process's own; the runtime adds every secret setting that it reads."""


def set_up(*, style: str, level: str) -> None:
    """Send every log line of the process to standard error in this style (``json`` or ``human``)."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = (
        [structlog.processors.dict_tracebacks, redaction, structlog.processors.JSONRenderer(default=str)]
        if style == "json"
        else [
            structlog.processors.format_exc_info,
            redaction,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("pymongo", "httpx", "httpcore", "stevedore"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


@contextmanager
def about(**names: Any) -> Iterator[None]:
    """Every line logged by this thread inside carries these names (connector, task)."""
    with structlog.contextvars.bound_contextvars(**names):
        yield
