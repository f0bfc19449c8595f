"""How values are written on pages; pure."""

from __future__ import annotations

import json
import math
from typing import Any

from tieline_connectors.points.live.point import UNREAD

_LONGEST = 300
_DIGITS = 6


def value_text(value: Any) -> str:
    """Return a value for a page: numbers with six digits, long texts shortened."""
    if value is UNREAD:
        return "…"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.{_DIGITS}g}" if math.isfinite(value) else _NOT_FINITE[str(value)]
    if isinstance(value, int):
        return shortened(str(value)) if value.bit_length() < _MAX_BITS else "an integer of many digits"
    return shortened(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Return a text that is not too long for a page, and that can be encoded."""
    short = text if len(text) <= longest else f"{text[:longest]}…"
    return short.encode("utf-8", "replace").decode()


_MAX_BITS = 4096
"""Python refuses to write longer integers in decimal."""
_NOT_FINITE = {"nan": "NaN", "inf": "∞", "-inf": "−∞"}
