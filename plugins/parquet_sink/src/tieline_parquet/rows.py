"""Records of one schema as rows of a table: the value's fields, and where the record came from.

A value that is a record gives a column a field; any other one is the column ``value``. A value without a
schema is text: as it is, anything else as JSON. Beside them is the struct ``_kafka``: topic, partition,
offset, timestamp, key as text, and the record's id (``tieline.id``), by which duplicates of a source that
is at least once can be told.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import functools
import json
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from tieline.api import ID_HEADER, Schema, SinkRecord, header
from tieline_parquet.columns import Column, column

ORIGIN = "_kafka"
_ORIGIN_TYPE = pa.struct(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", pa.timestamp("ms", "UTC")),
        pa.field("key", pa.string()),
        pa.field("id", pa.string()),
    ]
)


class Rows(NamedTuple):
    """A batch of Arrow with a row for each record in ``good``; the others failed, by index."""

    batch: Any
    good: Sequence[int]
    failures: dict[int, Exception]


class Layout:
    """The columns of one schema; none: of values without one. Raises ``ValueError`` if there can be none.

    ``reserved``: names that folders have; the value may have none of them.
    """

    def __init__(self, schema: Schema | None, reserved: frozenset[str]) -> None:
        made = Column(pa.string(), _text) if schema is None else column(schema.parsed)
        self._is_record = pa.types.is_struct(made.type) and isinstance(_definition(schema), dict)
        inside = list(made.type) if self._is_record else [pa.field("value", made.type)]
        taken = sorted({field.name for field in inside} & (reserved | {ORIGIN}))
        if taken:
            raise ValueError(f"a field is named {taken[0]}, as a column of the sink's own is")
        self._made = made
        self.schema = pa.schema([*inside, pa.field(ORIGIN, _ORIGIN_TYPE, nullable=False)])

    @staticmethod
    @functools.lru_cache(maxsize=256)
    def of(schema: Schema | None, reserved: frozenset[str]) -> Layout:
        """The same for the same schema; compiled once."""
        return Layout(schema, reserved)

    def rows(self, records: Sequence[SinkRecord]) -> Rows:
        """All at once; one by one only where one of them cannot be a row."""
        try:
            return Rows(self._batch(records), range(len(records)), {})
        except Exception:  # whatever a value makes Arrow raise: below each is looked at alone
            failures: dict[int, Exception] = {}
        for index, record in enumerate(records):
            try:
                self._batch([record])
            except Exception as error:
                failures[index] = ValueError(
                    f"no row of {self.schema.names}: {type(error).__name__}: {error}"
                )
        good = [index for index in range(len(records)) if index not in failures]
        return Rows(self._batch([records[index] for index in good]), good, failures)

    def _batch(self, records: Sequence[SinkRecord]) -> Any:
        values, convert = [record.value for record in records], self._made.convert
        if convert is not None:
            values = list(map(convert, values))
        array = pa.array(values, self._made.type)
        if array.null_count and self._is_record:
            raise ValueError("a record is null")
        _refuse_nulls(array, "value")
        columns = array.flatten() if self._is_record else [array]
        origin = pa.array(list(map(_origin, records)), _ORIGIN_TYPE)
        return pa.RecordBatch.from_arrays([*columns, origin], schema=self.schema)


def _refuse_nulls(array: Any, where: str) -> None:
    """Arrow itself looks at it only when a file is written, which is too late to name the record."""
    if pa.types.is_map(array.type):
        _refuse_nulls(array.items, f"{where}{{}}")
    elif pa.types.is_list(array.type):
        _refuse_nulls(array.flatten(), f"{where}[]")
    elif pa.types.is_struct(array.type):
        valid = array.drop_null() if array.null_count else array
        for field, inside in zip(array.type, valid.flatten(), strict=True):
            if inside.null_count and not field.nullable:
                raise ValueError(f"{where}.{field.name} is null")
            _refuse_nulls(inside, f"{where}.{field.name}")


def _definition(schema: Schema | None) -> Any:
    return None if schema is None else schema.parsed


def _origin(record: SinkRecord) -> dict[str, Any]:
    told = header(record, ID_HEADER)
    return {
        "topic": record.consumed_from.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": None if record.key is None else _text(record.key),
        "id": None if told is None else told.decode("ascii", "backslashreplace"),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=_as_json, ensure_ascii=False)


def _as_json(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    raise TypeError(f"a {type(value).__name__} is no JSON")
