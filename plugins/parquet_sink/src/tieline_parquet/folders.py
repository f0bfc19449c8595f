"""Finds the folder of a row in Hive's form, ``date=2026-01-31/by_device=a%2Fb``, which all readers support.

A field's folders do not have the name of the field. Readers turn the folder's name into a column, guess its
type (``0012`` becomes 12), and replace the column in the file by it, or reject both.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Sequence
from typing import Any

from tieline.api import SinkRecord

NULL_NAME = "__HIVE_DEFAULT_PARTITION__"
"""The name that Hive and its successors write for null and for an empty text."""
_MAX_NAME = 255
_ESCAPED = re.compile(r"""[\x00-\x1f\x7f"#%'*/:=?\\{}\[\]^]""")
_A_DAY = 86_400_000
_PER_MS = {"us": 1000, "ms": 1, "s": 1}


class Folders:
    """Finds times and folders. ``time_field`` and ``fields`` are paths; ``unit`` is for numeric times."""

    def __init__(self, date_name: str, time_field: str, unit: str, fields: Sequence[str]) -> None:
        self._date_name = date_name
        self._time = tuple(time_field.split(".")) if time_field else ()
        self._unit = unit
        self._fields = [(f"by_{path.rpartition('.')[2]}", tuple(path.split("."))) for path in fields]
        self.names = frozenset([date_name, *(name for name, _ in self._fields)])
        """The columns that readers create from the folders."""

    def time(self, record: SinkRecord) -> int | None:
        """Return a record's time in milliseconds since 1970, or ``None``. Raises ``ValueError``."""
        if not self._time:
            return record.timestamp if record.timestamp is None or record.timestamp >= 0 else None
        value = _field(record.value, self._time)
        if value is None:
            return None
        if isinstance(value, datetime.datetime):
            zoned = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
            return int(zoned.timestamp() * 1000)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{'.'.join(self._time)} is not a time, but a {type(value).__name__}")
        try:
            return int(value * 1000 if self._unit == "s" else value // _PER_MS[self._unit])
        except OverflowError:
            raise ValueError(f"{'.'.join(self._time)} is not a time: {value}") from None

    def of(self, record: SinkRecord, time: int | None) -> str:
        """Return the folder below the topic's folder. Raises ``ValueError``."""
        date = NULL_NAME if time is None else _date(time // _A_DAY)
        names = [f"{self._date_name}={date}"]
        names += [f"{name}={escaped(_field(record.value, path))}" for name, path in self._fields]
        if any(len(name.encode()) > _MAX_NAME for name in names):
            raise ValueError(f"a folder's name would have more than {_MAX_NAME} bytes")
        return "/".join(names)


def escaped(value: Any) -> str:
    """Return a value as a part of a folder's name, escaped as by Hive. Raises ``ValueError``."""
    if value is None or value == "":
        return NULL_NAME
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime):
        value = value.isoformat()
    if not isinstance(value, (str, int, float, datetime.date)):
        raise ValueError(f"a {type(value).__name__} cannot name a folder; take a field with text or a number")
    text = str(value)
    text.encode()  # UnicodeEncodeError is a ValueError; a name cannot contain half of a surrogate pair
    return _ESCAPED.sub(lambda match: f"%{ord(match[0]):02X}", text)


@functools.lru_cache(maxsize=4096)
def _date(day: int) -> str:
    try:
        return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()
    except OverflowError:
        raise ValueError("its time is before the year 1 or after 9999") from None


def _field(value: Any, path: Sequence[str]) -> Any:
    """Return the field at a path. Raises ``ValueError`` if it does not exist."""
    for name in path:
        if not isinstance(value, dict) or name not in value:
            raise ValueError(f"there is no field {'.'.join(path)}")
        value = value[name]
    return value
