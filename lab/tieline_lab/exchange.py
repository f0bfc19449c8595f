"""The commands and results of a run, read from their topics beside the worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tieline.api import SinkRecord
from tieline.api.commands import TopicClient
from tieline_lab.commands_comparison import find_unended
from tieline_lab.dispatcher import COMMANDS, RESULTS

_COMMAND = frozenset({"command_id", "issuer", "issued_at", "action", "writes", "hold_ms"})
_RESULT = frozenset({"command_id", "state", "at", "reason_code", "writes", "dry_run"})


class Exchange:
    """Follows both topics from their beginning. ``follow`` adds what is new to ``commands`` and ``results``.

    Records that lack the fields of a command or a result are skipped.
    """

    def __init__(self, topics: TopicClient) -> None:
        self.commands: list[Mapping[str, Any]] = []
        self.results: list[Mapping[str, Any]] = []
        self._readers = (
            (topics.reader(COMMANDS, 0), _COMMAND, self.commands),
            (topics.reader(RESULTS, 0), _RESULT, self.results),
        )

    def follow(self) -> None:
        """Read the records that are in the topics now."""
        for reader, fields, values in self._readers:
            while records := reader.poll(0.0):
                values += _select(records, fields)

    def read_to_end(self) -> None:
        """Read all records that were in the topics when this object was created."""
        for reader, fields, values in self._readers:
            while not reader.at_end:
                values += _select(reader.poll(1.0), fields)

    def latest(self, number: int) -> list[tuple[Mapping[str, Any], Mapping[str, Any] | None]]:
        """Return the last commands, the newest first, each with its latest result or ``None``."""
        results: dict[str, Mapping[str, Any]] = {}
        for result in self.results:
            earlier = results.get(result["command_id"])
            if earlier is None or result["at"] >= earlier["at"]:
                results[result["command_id"]] = result
        return [
            (command, results.get(command["command_id"])) for command in self.commands[: -number - 1 : -1]
        ]

    @property
    def unended(self) -> set[str]:
        """The ids of commands without a terminal result, or with a hold that has not ended."""
        return find_unended(self.commands, self.results)


def _select(records: Sequence[SinkRecord], fields: frozenset[str]) -> Iterator[Mapping[str, Any]]:
    for record in records:
        if isinstance(record.value, Mapping) and record.value.keys() >= fields:
            yield record.value
