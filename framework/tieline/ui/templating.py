"""Jinja2 templates of the framework and of page plugins, with the filters that every page uses."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_STEPS = ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"), (float("inf"), 86400, "d"))


class Templates:
    """Renders templates. Safe for many threads.

    ``folders``: where plugins have theirs; the framework's come first, so that no plugin replaces them.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        own = Path(__file__).with_name("templates")
        loaders = [FileSystemLoader(own), *(FileSystemLoader(folder) for folder in folders.values())]
        self._environment = Environment(
            loader=ChoiceLoader(loaders),
            autoescape=True,
            auto_reload=False,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "span": time_span,
            "number": number,
            "bytes": byte_size,
            "moment": moment,
            "ago": ago,
        }

    def render(self, template: str, values: Mapping[str, Any]) -> str:
        """Return the HTML of a template."""
        return self._environment.get_template(template).render(values)


def time_span(seconds: float | None) -> str:
    """Return a length of time in two or three letters and digits: ``5 s``, ``3 min``, ``2 h``, ``4 d``."""
    if seconds is None:
        return "–"
    seconds = max(0.0, seconds)
    _, unit, name = next(step for step in _STEPS if seconds < step[0])
    return f"{int(seconds // unit)} {name}"


def number(value: Any, digits: int = 6) -> str:
    """Return a number with so many significant digits at most, in groups of thousands; ``–`` for ``None``."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    return f"{value:.{digits}g}" if math.isfinite(value) else str(value)


def byte_size(value: float | None) -> str:
    """Return a number of bytes in the largest unit of which there is at least one: ``1.5 MB``."""
    if value is None:
        return "–"
    units = ("bytes", "kB", "MB", "GB", "TB")
    step = 0
    while value >= 1000 and step < len(units) - 1:
        value, step = value / 1000, step + 1
    return f"{value:.3g}\u202f{units[step]}"


def zone_of(name: str) -> dt.tzinfo:
    """Return a time zone by its IANA name; UTC if there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return dt.timezone.utc


def moment(time_ms: float | None, time_zone: str = "UTC") -> str:
    """Return an absolute time in a zone: ``2026-01-31 12:00:00.250 CET``."""
    if time_ms is None:
        return "–"
    try:
        time = dt.datetime.fromtimestamp(time_ms / 1000, zone_of(time_zone))
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"
    return time.strftime("%Y-%m-%d %H:%M:%S.") + f"{time.microsecond // 1000:03d} {time.tzname()}"


def ago(time_ms: float | None, now_ms: float, time_zone: str = "UTC") -> Markup:
    """Return a relative time as text with the absolute one on hover. app.js keeps it current."""
    if time_ms is None:
        return Markup("–")
    age = (now_ms - time_ms) / 1000
    text = f"{time_span(age)} ago" if age > -1 else f"in {time_span(-age)}"
    return Markup('<time datetime="{}" title="{}" data-ms="{}">{}</time>').format(
        _iso(time_ms), moment(time_ms, time_zone), int(time_ms), text
    )


def _iso(time_ms: float) -> str:
    try:
        return dt.datetime.fromtimestamp(time_ms / 1000, dt.timezone.utc).isoformat()
    except (OverflowError, ValueError, OSError):
        return ""
