"""Connections that a broker ends in their first moment: what librdkafka logs of them, and what it may mean.

Its lines say neither: with a wrong ``security.protocol`` there are 19 a second of ``Disconnected``, at a
level that nobody logs.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

_FAILED = re.compile(r"FAIL .*?: (?:\w+://)?(?P<broker>\S+:\d+)/\S+: (?P<what>.*)")
_AT_ONCE = re.compile(r"(Disconnected|Receive failed|Connection reset).*\(after (\d+)ms in state (\w+)")
_SOON_MS = 1_000
_TIMES = 3
_WITHIN = 10.0
_AGAIN = 600.0


def meaning(line: str) -> tuple[str, str, bool]:
    """The broker, what the line may mean, and whether it says so alone; empty where it means nothing here."""
    failed = _FAILED.search(line)
    if failed is None:
        return "", "", False
    broker, what = failed["broker"], failed["what"]
    if "certificate verify failed" in what:
        return broker, "its certificate is not signed by a known authority: check ssl.ca.location", True
    if "SSL handshake failed" in what or "in state SSL_HANDSHAKE" in what:
        return (
            broker,
            "it does not answer as TLS does, and may not speak SSL. Check security.protocol",
            True,
        )
    if "Invalid response size" in what or "incorrect security.protocol" in what:
        return broker, "it does not answer as Kafka does: it may speak SSL. Check security.protocol", True
    at_once = _AT_ONCE.search(what)
    if at_once and int(at_once[2]) < _SOON_MS and at_once[3] != "CONNECT":
        return (
            broker,
            (
                "it closes each connection during the handshake: it may speak SSL or SASL, or want other "
                "credentials. Check security.protocol and sasl.* against its listener"
            ),
            False,
        )
    return "", "", False


class Handshakes(logging.Filter):
    """Looks at librdkafka's lines as they pass, and says once what they may mean."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._lock = threading.Lock()
        self._seen: deque[float] = deque(maxlen=_TIMES)
        self._said_at = float("-inf")
        self._hint = ("", float("-inf"))

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every line pass."""
        broker, hint, alone = meaning(record.getMessage())
        if broker:
            self._look(f"Kafka at {broker}: {hint}", alone)
        return True

    def hint(self) -> str:
        """What connections fail by now; empty: not known."""
        hint, at = self._hint
        return hint if self._now() - at <= 60.0 else ""

    def _look(self, hint: str, alone: bool) -> None:
        with self._lock:
            now = self._now()
            self._seen.append(now)
            if not alone and (len(self._seen) < _TIMES or now - self._seen[0] > _WITHIN):
                return
            self._hint = (hint, now)
            if now - self._said_at < _AGAIN:
                return
            self._said_at = now
        log.warning("%s", hint)


handshakes = Handshakes()
"""The process's own; see ``settings.log``."""
