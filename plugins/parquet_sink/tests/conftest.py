"""What the tests of the sink begin with."""

import os
from pathlib import Path

import pyarrow.parquet as pq

from tieline.testing.signals import keep_ignored_signals_from_children

ROOT = Path(__file__).parents[3]
os.environ["TIELINE_LAB_DIR"] = str(Path(os.environ.get("TIELINE_LAB_DIR") or ROOT / ".lab").absolute())

keep_ignored_signals_from_children()


def files(root):
    """All Parquet files below, in order, by their path."""
    return {str(path.relative_to(root)): path for path in sorted(root.rglob("*.parquet"))}


def rows(root):
    """The rows of all files, in the order of the files' names."""
    return [row for path in files(root).values() for row in pq.ParquetFile(path).read().to_pylist()]
