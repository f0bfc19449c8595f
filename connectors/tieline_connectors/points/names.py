"""Points in addresses of pages: a point as text, and its short id; pure.

A name is what a device publishes, so it may contain anything.
"""

from __future__ import annotations

import hashlib
import json
from urllib.parse import quote, unquote

from tieline_connectors.points.questions import PointName

_ENCODED = {"%": "%25", "/": "%2F"}


def point_text(name: PointName) -> str:
    """Return ``platform/device/point``; only platform and point have their ``/`` and ``%`` escaped.

    It still has to be encoded for an address: the filter ``urlencode`` of a template does it.
    """
    return f"{_escape(name.platform)}/{name.device}/{_escape(name.point)}"


def parse_point_text(text: str) -> PointName | None:
    """Return the point that ``point_text`` wrote, or ``None`` if it is not one."""
    platform, first, rest = text.partition("/")
    device, second, point = rest.rpartition("/")
    if not first or not second:
        return None
    return PointName(unquote(platform, errors="strict"), device, unquote(point, errors="strict"))


def point_id(name: PointName) -> str:
    """Return a short id of letters and digits, the same after a restart; for ids of elements."""
    text = json.dumps(name, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def set_query(name: PointName) -> str:
    """Return the address below ``/ui`` of the page that sets a point.

    Commands know a point by its path, without escapes.
    """
    return f"/set?point={quote('/'.join(name), safe='', errors='replace')}"


def _escape(text: str) -> str:
    return "".join(_ENCODED.get(letter, letter) for letter in text)
