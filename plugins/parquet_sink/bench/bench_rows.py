"""``python bench/bench_rows.py``: readings a second through the sink's task, beside the bare library.

The bare loop makes one table of the same rows, without folders, names, checks or fsync. Alternating, medians.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
from tieline_parquet.config import ParquetSinkConfig
from tieline_parquet.rows import Layout
from tieline_parquet.sink import ParquetSinkTask

from tieline.api import Schema, SinkRecord, identity
from tieline.testing.sink_context import RecordingSinkContext

READINGS, A_BATCH, A_FILE, RUNS = 40_000, 2_000, 10_000, 5
SCHEMA = Schema.named("volttron.DeviceReading")
METADATA = {"units": "degF", "type": "float", "tz": "UTC"}


def reading(number: int) -> SinkRecord:
    """Six points with metadata, as VOLTTRON's driver publishes them."""
    value = {
        "platform": "campus", "topic": "devices/campus/ahu1/all", "device": "campus/ahu1", "kind": "ALL",
        "form": "PAIR", "sender": "platform.driver", "headers": {"Date": "2026-01-31T12:00:00+00:00"},
        "time": 1_769_860_800_000_000 + number * 1_000_000, "time_source": "TIMESTAMP",
        "received": 1_769_860_800_000_000 + number * 1_000_000,
        "points": {f"point{n}": 20.0 + number % 100 for n in range(6)},
        "metadata": {f"point{n}": METADATA for n in range(6)},
    }  # fmt: skip
    timestamp = 1_769_860_800_000 + number * 1000
    return SinkRecord("readings", 0, number, value, "campus/ahu1", identity(number), timestamp, SCHEMA)


def through_the_sink(records: Sequence[SinkRecord], folder: Path) -> None:
    """Write batches as a worker does, with a commit after each."""
    settings = {"store.url": str(folder), "flush.size": str(A_FILE), "rotate.interval.ms": "-1"}
    task = ParquetSinkTask(RecordingSinkContext(), ParquetSinkConfig.parse(settings))
    task.start()
    for start in range(0, len(records), A_BATCH):
        task.put(records[start : start + A_BATCH])
        task.flush({})
    task.stop()


def bare(records: Sequence[SinkRecord], folder: Path) -> None:
    """Write the same rows with pyarrow alone."""
    layout = Layout.of(SCHEMA, frozenset())
    for start in range(0, len(records), A_FILE):
        rows = [layout.column.convert(record.value) for record in records[start : start + A_FILE]]
        table = pa.Table.from_pylist(rows, pa.schema(list(layout.column.type)))
        pq.write_table(table, folder / f"{start}.parquet", compression="zstd")


def seconds(way: Callable[[Sequence[SinkRecord], Path], None], records: Sequence[SinkRecord]) -> float:
    """Return the duration of one run."""
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        way(records, Path(folder))
        return time.perf_counter() - started


def main() -> None:
    """Print one line of JSON."""
    records = [reading(number) for number in range(READINGS)]
    runs = [(seconds(through_the_sink, records), seconds(bare, records)) for _ in range(RUNS)]
    ours, theirs = (statistics.median(times) for times in zip(*runs, strict=True))
    ratio = statistics.median(their / our for our, their in runs)
    print(json.dumps({"sink_rows_s": round(READINGS / ours), "bare_rows_s": round(READINGS / theirs),
                      "ratio": round(ratio, 2)}))  # fmt: skip


if __name__ == "__main__":
    main()
