"""Times and durations as the status, the log and the commands write them. Pure."""

from __future__ import annotations

import datetime as dt


def iso_utc(ms: int, timespec: str = "seconds") -> str:
    """Return a time in ms since 1970 as ISO 8601, UTC; its number if no calendar has it.

    A clock that is wrong may return such a time.
    """
    try:
        return dt.datetime.fromtimestamp(ms / 1000, dt.timezone.utc).isoformat(timespec=timespec)
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


def iso_ms(text: str) -> int | None:
    """Return a time of ``iso_utc`` in ms since 1970; ``None`` if a clock was wrong when it was written."""
    try:
        return int(dt.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def local_time(ms: float, now_ms: float) -> str:
    """Return a time in the local zone, with its date unless it is that of ``now_ms``.

    Raises ``ValueError``, ``OverflowError`` or ``OSError`` if no calendar has the time.
    """
    moment, now = (dt.datetime.fromtimestamp(each / 1000).astimezone() for each in (ms, now_ms))
    return moment.strftime("%H:%M:%S" if moment.date() == now.date() else "%Y-%m-%d %H:%M:%S")


def span_text(seconds: float) -> str:
    """Return a duration as text, such as 4 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
