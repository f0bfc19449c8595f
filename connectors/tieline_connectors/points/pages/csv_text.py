"""Tables as CSV, safe to open in a spreadsheet; pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

MEDIA_TYPE = "text/csv; charset=utf-8"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_ROWS = 1000


def csv_parts(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """Yield a table in parts of up to 1000 rows. A text that a spreadsheet would execute gets a ``'``."""
    yield _lines([list(header)])
    remaining = iter(rows)
    while part := list(islice(remaining, _ROWS)):
        yield _lines(part)


def cell(value: Any) -> Any:
    """Return what is written for one value. Numbers stay as they are; all other text is guarded."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return json.dumps(value) if value.bit_length() < 4096 else "an integer of many digits"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text.encode("utf-8", "replace").decode()
    return f"'{text}" if text.startswith(_FORMULA) else text


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([cell(value) for value in row] for row in rows)
    return text.getvalue()
