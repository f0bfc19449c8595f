"""The settings of the Parquet sink, with the names of Confluent's S3 sink if they mean the same."""

from __future__ import annotations

from typing import Literal

from tieline.api import CommaList, Config, setting


class ParquetSinkConfig(Config):
    """Where files are written, when a file ends, and the layout of folders."""

    url: str = setting(
        "store.url",
        doc="A folder, or a URL of fsspec or pyarrow (s3://bucket/path, abfs://…, hdfs://…).",
        importance="high",
        min_length=1,
    )
    flush_size: int = setting(
        "flush.size",
        10_000,
        doc="The largest number of records of a partition in one file.",
        importance="high",
        ge=1,
    )
    rotate_interval_ms: int = setting(
        "rotate.interval.ms",
        600_000,
        doc="A file ends before a record that is this much later than its first one. -1: never.",
        importance="high",
        ge=-1,
    )
    partition_fields: CommaList = setting(
        "partition.fields",
        (),
        doc="Fields of the value (or a.b) that become folders below the date: by_<field>=<value>.",
    )
    date_name: str = setting(
        "partition.date.name",
        "date",
        doc="The name of the date's folders: date=2026-01-31, in UTC.",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
    )
    time_field: str = setting(
        "time.field",
        "",
        doc="The field of the value (or a.b) with the record's time. Empty: the record's timestamp.",
    )
    time_unit: Literal["us", "ms", "s"] = setting(
        "time.unit", "us", doc="The unit since 1970 of a time.field that is a plain number: us, ms or s."
    )
    codec: Literal["zstd", "snappy", "gzip", "none"] = setting(
        "parquet.codec", "zstd", doc="The compression of files: zstd, snappy, gzip or none."
    )

    def problems(self) -> list[tuple[str, str]]:
        """Return conflicts between settings."""
        names = [path.rpartition(".")[2] for path in self.partition_fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            return [
                (
                    "partition.fields",
                    f"would create two folders named {twice[0]}: name each field, and the date, once",
                )
            ]
        return []
