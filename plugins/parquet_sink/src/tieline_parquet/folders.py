"""Which folder a row is in: Hive's form, ``date=2026-01-31/by_device=a%2Fb``, which all readers know.

A field's folders are not named as the field: readers take the folder's name for a column of its own, guess
its type (``0012`` becomes 12), and let it stand for the column in the file, or refuse both.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Sequence
from typing import Any

from tieline.api import SinkRecord

NOTHING = "__HIVE_DEFAULT_PARTITION__"
"""What Hive and all that came after it write for null, and for an empty text."""
_MAX_NAME = 255
_ESCAPED = re.compile(r"""[\x00-\x1f\x7f"#%'*/:=?\\{}\[\]^]""")
_A_DAY = 86_400_000
_PER_MS = {"us": 1000, "ms": 1, "s": 1}


class Folders:
    """``time_field``, ``fields``: paths into the value, with dots. ``unit``: of a time that is a number."""

    def __init__(self, date_name: str, time_field: str, unit: str, fields: Sequence[str]) -> None:
        self._date_name = date_name
        self._time = tuple(time_field.split(".")) if time_field else ()
        self._unit = unit
        self._fields = [(f"by_{path.rpartition('.')[2]}", tuple(path.split("."))) for path in fields]
        self.names = frozenset([date_name, *(name for name, _ in self._fields)])
        """The columns that readers make of the folders."""

    def time(self, record: SinkRecord) -> int | None:
        """Milliseconds since 1970. Raises ``ValueError``."""
        if not self._time:
            return record.timestamp if record.timestamp is None or record.timestamp >= 0 else None
        found = _at(record.value, self._time)
        if found is None:
            return None
        if isinstance(found, datetime.datetime):
            zoned = found if found.tzinfo else found.replace(tzinfo=datetime.timezone.utc)
            return int(zoned.timestamp() * 1000)
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            raise ValueError(f"{'.'.join(self._time)} is no time, but a {type(found).__name__}")
        try:
            return int(found * 1000 if self._unit == "s" else found // _PER_MS[self._unit])
        except OverflowError:
            raise ValueError(f"{'.'.join(self._time)} is no time: {found}") from None

    def of(self, record: SinkRecord, time: int | None) -> str:
        """The folder below the topic's. Raises ``ValueError``."""
        date = NOTHING if time is None else _date(time // _A_DAY)
        names = [f"{self._date_name}={date}"]
        names += [f"{name}={escaped(_at(record.value, path))}" for name, path in self._fields]
        if any(len(name.encode()) > _MAX_NAME for name in names):
            raise ValueError(f"a folder's name would have more than {_MAX_NAME} bytes")
        return "/".join(names)


def escaped(value: Any) -> str:
    """A value as part of a folder's name, as Hive escapes it. Raises ``ValueError`` on what is no name."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime):
        value = value.isoformat()
    if not isinstance(value, (str, int, float, datetime.date)):
        raise ValueError(f"a {type(value).__name__} cannot name a folder; take a field with text or a number")
    text = str(value)
    text.encode()  # UnicodeEncodeError is a ValueError: half a surrogate is no file's name
    return _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", text)


@functools.lru_cache(maxsize=4096)
def _date(day: int) -> str:
    try:
        return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()
    except OverflowError:
        raise ValueError("its time is before the year 1 or after 9999") from None


def _at(value: Any, path: Sequence[str]) -> Any:
    """Raises ``ValueError`` where there is no such field."""
    for name in path:
        if not isinstance(value, dict) or name not in value:
            raise ValueError(f"there is no field {'.'.join(path)}")
        value = value[name]
    return value
