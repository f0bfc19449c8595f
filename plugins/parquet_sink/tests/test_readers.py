"""What comes after tieline reads the files: DuckDB, pandas, Spark."""

import datetime
import json
import os

import duckdb
import pandas
import pytest
from tieline_parquet.config import ParquetSinkConfig
from tieline_parquet.sink import ParquetSinkTask

from tieline.api import Schema, SinkRecord, identity
from tieline.testing.sink_context import RecordingSinkContext

DAY = 86_400_000_000
READING = Schema.named("volttron.DeviceReading")


def reading(number):
    day = datetime.datetime(2026, 1, 31, 23, 59, tzinfo=datetime.timezone.utc).timestamp() * 1_000_000
    metadata = {"units": "degF", "type": "float", "tz": None}
    return {
        "platform": "campus",
        "topic": f"devices/campus/ahu{number % 2}/all",
        "device": f"campus/ahu{number % 2}",
        "kind": "ALL",
        "form": "PAIR",
        "sender": "platform.driver",
        "headers": {"Date": "today", "min": {"json": "[3, 0]"}},
        "time": int(day) + number * 10_000_000, "time_source": "TIMESTAMP", "received": 0,
        "points": {"temp": 20.0 + number, "count": number, "on": True, "text": "é", "none": None},
        "metadata": {"temp": metadata},
    }  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Twelve readings of two devices, over midnight; six a file; then two with a field more."""
    root = tmp_path_factory.mktemp("lake")
    settings = {"store.url": str(root), "flush.size": "6", "partition.fields": "device", "time.field": "time"}
    task = ParquetSinkTask(RecordingSinkContext(), ParquetSinkConfig.parse(settings))
    task.start()
    task.put([
        SinkRecord("readings", 0, n, reading(n), f"campus/ahu{n % 2}", identity("r", n), 1_000 + n, READING)
        for n in range(12)
    ])  # fmt: skip
    definition = json.loads(READING.text)
    definition["fields"].append({"name": "more", "type": ["null", "long"], "default": None})
    newer = Schema.parse(json.dumps(definition))
    task.put([
        SinkRecord("readings", 0, n, {**reading(n), "more": n}, None, identity("r", n), 1_000 + n, newer)
        for n in range(12, 18)
    ])  # fmt: skip
    task.flush({})
    task.stop()
    return root


def test_duckdb_reads_all_of_it_with_folders_as_columns(lake):
    files = f"read_parquet('{lake}/readings/**/*.parquet', hive_partitioning=true, union_by_name=true)"
    ask = duckdb.connect().sql
    assert ask(f"SELECT count(*), count(DISTINCT _kafka.id), count(more) FROM {files}").fetchall() == [
        (18, 18, 6)
    ]
    by_day = ask(f"SELECT date, by_device, count(*) FROM {files} GROUP BY ALL ORDER BY ALL").fetchall()
    days = datetime.date(2026, 1, 31), datetime.date(2026, 2, 1)
    assert by_day == [(days[0], "campus/ahu0", 3), (days[0], "campus/ahu1", 3),
                      (days[1], "campus/ahu0", 6), (days[1], "campus/ahu1", 6)]  # fmt: skip
    points = ask(
        f"SELECT points['temp'].double, points['count'].long FROM {files} ORDER BY _kafka.offset"
    ).fetchall()
    assert points == [(20.0 + n, n) for n in range(18)]
    headers = ask(f"SELECT DISTINCT headers['min'].JsonText.json FROM {files}").fetchall()
    assert headers == [("[3, 0]",)]


def test_pandas_reads_it(lake):
    frame = pandas.read_parquet(lake / "readings").sort_values("time")
    assert len(frame) == 18
    assert list(frame["time"]) == [reading(n)["time"] for n in range(18)]
    assert set(frame["date"].astype(str)) == {"2026-01-31", "2026-02-01"}


@pytest.fixture(scope="module")
def spark():
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config(
        "spark.sql.session.timeZone", "UTC"
    )
    session = builder.getOrCreate()
    yield session
    session.stop()


def test_spark_reads_all_of_it_with_nested_columns(lake, spark):
    frame = spark.read.option("mergeSchema", "true").parquet(str(lake / "readings"))
    frame.createOrReplaceTempView("readings")
    (counts,) = spark.sql("SELECT count(*), count(DISTINCT _kafka.id), count(more) FROM readings").collect()
    assert tuple(counts) == (18, 18, 6)
    found = spark.sql(
        "SELECT date, device, points['temp'].double AS temp, metadata['temp'].PointMetadata.units AS units"
        " FROM readings ORDER BY _kafka.offset"
    ).collect()
    assert [row.temp for row in found] == [20.0 + n for n in range(18)]
    assert {row.units for row in found} == {"degF"}
    assert found[0].date == datetime.date(2026, 1, 31)
    assert found[0].device == "campus/ahu0"


def test_spark_passes_over_what_is_being_written(lake, spark):
    scratch = lake / "_scratch" / "somebody"
    scratch.mkdir(parents=True)
    (scratch / "file").write_bytes(b"torn")
    assert (
        spark.read.option("mergeSchema", "true")
        .option("recursiveFileLookup", "true")
        .parquet(str(lake))
        .count()
    )
