"""The settings of the Parquet sink; Confluent's S3 sink has given its names to those that mean the same."""

from __future__ import annotations

from typing import Literal

from tieline.api import CommaList, Config, setting


class ParquetSinkConfig(Config):
    """Where the files go, where they end, and how they are laid out in folders."""

    url: str = setting(
        "store.url",
        doc="A folder, or a URL that fsspec or pyarrow knows (s3://bucket/path, abfs://…, hdfs://…).",
        importance="high",
        min_length=1,
    )
    flush_size: int = setting(
        "flush.size",
        10_000,
        doc="A file ends with so many records of its partition.",
        importance="high",
        ge=1,
    )
    rotate_interval_ms: int = setting(
        "rotate.interval.ms",
        600_000,
        doc="A file ends before the record that is so many ms later than its first one; -1: never.",
        importance="high",
        ge=-1,
    )
    partition_fields: CommaList = setting(
        "partition.fields",
        (),
        doc="Fields of the value (a.b: inside) that make folders below the date: by_<field>=<value>.",
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
        doc="The field of the value (a.b: inside) that is a record's time; none: the record's own.",
    )
    time_unit: Literal["us", "ms", "s"] = setting(
        "time.unit", "us", doc="What a time.field that is a plain number counts since 1970: us, ms or s."
    )
    codec: Literal["zstd", "snappy", "gzip", "none"] = setting(
        "parquet.codec", "zstd", doc="How the files are compressed: zstd, snappy, gzip or none."
    )

    def problems(self) -> list[tuple[str, str]]:
        """What one setting alone cannot show."""
        names = [path.rpartition(".")[2] for path in self.partition_fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            return [
                (
                    "partition.fields",
                    f"makes two folders named {twice[0]}: name each field, and the date, once",
                )
            ]
        return []
