"""`python -m bench [NAME ...]` runs the named benchmarks, or all."""

from __future__ import annotations

import sys

from bench import (
    commands,
    dead_letters,
    formats,
    growth,
    history,
    kafka_connect,
    kafka_to_mongo,
    metrics,
    reception,
    registry,
    series,
    stages,
    start_and_memory,
    viewers,
    way_back,
    whole_way,
)
from bench.stand import open_stand

BENCHMARKS = {
    "formats": formats.run,
    "kafka_to_mongo": kafka_to_mongo.run,
    "kafka_connect": kafka_connect.run,
    "reception": reception.run,
    "whole_way": whole_way.run,
    "start_and_memory": start_and_memory.run,
    "growth": growth.run,
    "stages": stages.run,
    "way_back": way_back.run,
    "commands": commands.run,
    "registry": registry.run,
    "history": history.run,
    "series": series.run,
    "viewers": viewers.run,
    "metrics": metrics.run,
    "dead_letters": dead_letters.run,
}


def main(names: list[str]) -> None:
    """Run these benchmarks, or all, on the same servers."""
    unknown = set(names) - BENCHMARKS.keys()
    if unknown:
        sys.exit(f"unknown benchmark: {', '.join(sorted(unknown))}. Name one of {', '.join(BENCHMARKS)}")
    with open_stand() as stand:
        for name in names or BENCHMARKS:
            BENCHMARKS[name](stand)


if __name__ == "__main__":
    main(sys.argv[1:])
