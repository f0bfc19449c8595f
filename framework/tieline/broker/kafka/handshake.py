"""Explaining connections that a broker closes at once, from what librdkafka logs.

librdkafka does not explain them. With a wrong ``security.protocol`` it logs ``Disconnected`` 19 times a
second, at a level that is usually not logged.
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
_LINES_NEEDED = 3
_WITHIN = 10.0  # seconds
_REPEAT_AFTER = 600.0  # seconds


def meaning(line: str) -> tuple[str, str, bool]:
    """Return the broker, what a line may mean, and whether one line is enough; empty for nothing."""
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
    """Examines librdkafka's lines as they pass, and explains them once."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=_LINES_NEEDED)
        self._logged_at = float("-inf")
        self._hint = ("", float("-inf"))

    def filter(self, record: logging.LogRecord) -> bool:
        """Examine a line. Every line passes."""
        broker, hint, is_enough = meaning(record.getMessage())
        if broker:
            self._note(f"Kafka at {broker}: {hint}", is_enough)
        return True

    def hint(self) -> str:
        """Return why connections fail at present; empty if unknown."""
        hint, noted = self._hint
        return hint if self._now() - noted <= 60.0 else ""

    def _note(self, hint: str, is_enough: bool) -> None:
        with self._lock:
            now = self._now()
            self._times.append(now)
            if not is_enough and (len(self._times) < _LINES_NEEDED or now - self._times[0] > _WITHIN):
                return
            self._hint = (hint, now)
            if now - self._logged_at < _REPEAT_AFTER:
                return
            self._logged_at = now
        log.warning("%s", hint)


handshakes = Handshakes()
"""The filter of this process; see ``settings.log``."""
