"""What has been said in the topics of commands and of results, by whomever."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tieline.api import SinkRecord
from tieline.api.commands import TopicClient
from tieline_lab.commands_comparison import unended
from tieline_lab.dispatcher import COMMANDS, RESULTS

_COMMAND = frozenset({"command_id", "issuer", "issued_at", "action", "writes", "hold_ms"})
_RESULT = frozenset({"command_id", "state", "at", "reason_code", "writes", "dry_run"})


class Exchange:
    """Follows both topics from their beginning. Nothing is known anew until ``follow`` is called.

    What is no command and no result in its form is passed over: nobody can tell what it asks for.
    """

    def __init__(self, topics: TopicClient) -> None:
        self.commands: list[Mapping[str, Any]] = []
        self.results: list[Mapping[str, Any]] = []
        self._readers = (
            (topics.reader(COMMANDS, 0), _COMMAND, self.commands),
            (topics.reader(RESULTS, 0), _RESULT, self.results),
        )

    def follow(self) -> None:
        """Read what is there now."""
        for reader, fields, values in self._readers:
            while records := reader.poll(0.0):
                values += _known(records, fields)

    def read_to_the_end(self) -> None:
        """Read all that was there when this was made."""
        for reader, fields, values in self._readers:
            while not reader.at_end:
                values += _known(reader.poll(1.0), fields)

    def latest(self, number: int) -> list[tuple[Mapping[str, Any], Mapping[str, Any] | None]]:
        """The newest commands, the newest first, each with the latest that was told of it, if anything."""
        told: dict[str, Mapping[str, Any]] = {}
        for result in self.results:
            before = told.get(result["command_id"])
            if before is None or result["at"] >= before["at"]:
                told[result["command_id"]] = result
        return [(command, told.get(command["command_id"])) for command in self.commands[: -number - 1 : -1]]

    @property
    def unended(self) -> set[str]:
        """The commands that are still on their way, or still held."""
        return unended(self.commands, self.results)


def _known(records: Sequence[SinkRecord], fields: frozenset[str]) -> Iterator[Mapping[str, Any]]:
    for record in records:
        if isinstance(record.value, Mapping) and record.value.keys() >= fields:
            yield record.value
