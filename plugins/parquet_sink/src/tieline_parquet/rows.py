"""Converts records of one schema to rows of a table, with the value's fields and the record's origin.

A value that is a record has a column for each field; any other value is the column ``value``. A value without
a schema is text; other types are written as JSON. The struct ``_kafka`` has topic, partition, offset,
timestamp, key as text, and the record's id (``tieline.id``), which identifies duplicates of an at-least-once
source.
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
    """An Arrow batch with a row for each index in ``good``, and the failures of the others by index."""

    batch: Any
    good: Sequence[int]
    failures: dict[int, Exception]


class Layout:
    """The columns of one schema, or of values without one. Raises ``ValueError`` on an unsupported schema.

    ``reserved`` are the names of folders, which the value's fields may not have.
    """

    def __init__(self, schema: Schema | None, reserved: frozenset[str]) -> None:
        self.column = Column(pa.string(), _text) if schema is None else column(schema.parsed)
        """The Arrow type of a value, and its conversion."""
        kind = self.column.type
        self._is_record = pa.types.is_struct(kind) and isinstance(_definition(schema), dict)
        fields = list(kind) if self._is_record else [pa.field("value", kind)]
        taken = sorted({field.name for field in fields} & (reserved | {ORIGIN}))
        if taken:
            raise ValueError(f"a field is named {taken[0]}, which is a column of the sink")
        self.schema = pa.schema([*fields, pa.field(ORIGIN, _ORIGIN_TYPE, nullable=False)])

    @staticmethod
    @functools.lru_cache(maxsize=256)
    def of(schema: Schema | None, reserved: frozenset[str]) -> Layout:
        """Return the layout of a schema, which is compiled once."""
        return Layout(schema, reserved)

    def rows(self, records: Sequence[SinkRecord]) -> Rows:
        """Convert all records at once, or one by one if one of them cannot be converted."""
        try:
            return Rows(self._batch(records), range(len(records)), {})
        except Exception:  # noqa: BLE001 - Arrow raises many kinds; the loop below finds the record
            failures: dict[int, Exception] = {}
        for index, record in enumerate(records):
            try:
                self._batch([record])
            except Exception as error:  # noqa: BLE001 - Arrow raises many kinds
                failures[index] = ValueError(
                    f"cannot be a row of {self.schema.names}: {type(error).__name__}: {error}"
                )
        good = [index for index in range(len(records)) if index not in failures]
        return Rows(self._batch([records[index] for index in good]), good, failures)

    def _batch(self, records: Sequence[SinkRecord]) -> Any:
        values, convert = [record.value for record in records], self.column.convert
        if convert is not None:
            values = list(map(convert, values))
        array = pa.array(values, self.column.type)
        if array.null_count and self._is_record:
            raise ValueError("a record is null")
        _reject_nulls(array, "value")
        columns = array.flatten() if self._is_record else [array]
        origin = pa.array(list(map(_origin, records)), _ORIGIN_TYPE)
        return pa.RecordBatch.from_arrays([*columns, origin], schema=self.schema)


def _reject_nulls(array: Any, where: str) -> None:
    """Raise ``ValueError`` on a null in a required field. Arrow checks it only when it writes the file."""
    if pa.types.is_map(array.type):
        _reject_nulls(array.items, f"{where}{{}}")
    elif pa.types.is_list(array.type):
        _reject_nulls(array.flatten(), f"{where}[]")
    elif pa.types.is_struct(array.type):
        valid = array.drop_null() if array.null_count else array
        for field, inside in zip(array.type, valid.flatten(), strict=True):
            if inside.null_count and not field.nullable:
                raise ValueError(f"{where}.{field.name} is null")
            _reject_nulls(inside, f"{where}.{field.name}")


def _definition(schema: Schema | None) -> Any:
    return None if schema is None else schema.parsed


def _origin(record: SinkRecord) -> dict[str, Any]:
    record_id = header(record, ID_HEADER)
    return {
        "topic": record.consumed_from.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": None if record.key is None else _text(record.key),
        "id": None if record_id is None else record_id.decode("ascii", "backslashreplace"),
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
    raise TypeError(f"a {type(value).__name__} is not JSON")
