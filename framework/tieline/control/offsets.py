"""Showing and changing the offsets of a stopped connector, for the command line and REST.

A move is planned first, which changes nothing and can be shown; then it is applied. Every refusal is an
``OffsetsRefusedError``, whose message says what to do.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tieline.api import StartupError, TopicPartition, parse_json
from tieline.api.commands import parse_time
from tieline.broker.internal import replay_topic
from tieline.broker.offset_admin import OffsetAdmin, Span
from tieline.runtime.task.context import canonical
from tieline.runtime.worker.status_file import statuses

_GROUP = "connect-"


class OffsetsRefusedError(StartupError):
    """A change of offsets that is impossible or would be wrong. Nothing was changed."""


class SinkOffset(NamedTuple):
    """A sink's offset in one partition. ``None``: no committed offset, or the partition no longer exists."""

    topic: str
    partition: int
    committed: int | None
    first: int | None
    end: int | None

    @property
    def lag(self) -> int | None:
        """Offsets behind the end; without a committed offset, all that the partition holds."""
        if self.end is None or self.first is None:
            return None
        return self.end - (self.first if self.committed is None else self.committed)


class SinkMove(NamedTuple):
    """One partition's offset before and after the move. ``after`` is ``None`` to remove it."""

    topic: str
    partition: int
    before: int | None
    after: int | None
    span: Span

    @property
    def effect(self) -> str:
        """What the move does, in words."""
        before = self.span.first if self.before is None else self.before
        after = self.span.first if self.after is None else self.after
        if after == before:
            return "no change"
        count = f"{abs(after - before)} offset(s)"
        return f"passes over {count}" if after > before else f"reads {count} again"


class SourceMove(NamedTuple):
    """One source partition's offset before and after the move. ``None``: not set."""

    partition: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class OffsetTarget:
    """What to set offsets to. ``kind``: ``earliest``, ``latest``, ``offset`` or ``time`` (ms since 1970)."""

    kind: str
    number: int = 0

    @staticmethod
    def parse(text: str, now: dt.datetime) -> OffsetTarget:
        """Parse a target. Raises ``OffsetsRefusedError`` with the known forms."""
        if text in ("earliest", "latest"):
            return OffsetTarget(text)
        if text.isascii() and text.isdigit():
            if len(text) > 18:
                raise OffsetsRefusedError(
                    f"the offset {text[:40]} is too large: no partition has so many records"
                )
            return OffsetTarget("offset", int(text))
        try:
            time = parse_time(text, now)
        except ValueError:
            raise OffsetsRefusedError(
                f"{text[:100]!r} is not a target for offsets; known forms are earliest, latest, an "
                "offset (42), a time (2026-01-31T12:00:00Z) and an age (15m, 2h, 7d)"
            ) from None
        return OffsetTarget(
            "time", max(0, int(time.timestamp() * 1000))
        )  # Kafka takes a negative time for a code


class ConnectorOffsets:
    """The offsets of one connector. ``timeout``: seconds for each call to the broker."""

    def __init__(self, store: OffsetAdmin, connector: str, timeout: float = 10.0) -> None:
        self.connector = connector
        self.group = f"{_GROUP}{connector}"
        self._replays = replay_topic(connector)
        self._store = store
        self._timeout = timeout

    def sink_offsets(self) -> list[SinkOffset]:
        """Return every partition of the topics in which the sink has committed offsets."""
        committed = self._store.group(self.group, self._timeout).committed
        spans = self._store.spans({partition.topic for partition in committed}, self._timeout)
        return [
            SinkOffset(*partition, committed.get(partition), *(spans.get(partition) or (None, None)))
            for partition in sorted({*committed, *spans})
        ]

    def plan_set(
        self, target: OffsetTarget, topics: Collection[str] = (), partitions: Collection[int] = ()
    ) -> list[SinkMove]:
        """Return what setting the offsets would do. Raises ``OffsetsRefusedError``.

        Without ``topics``: in every topic in which the sink has committed offsets, except that of replays.
        """
        committed = self._store.group(self.group, self._timeout).committed
        names = set(topics) or {partition.topic for partition in committed} - {self._replays}
        if not names:
            raise OffsetsRefusedError(
                f"the sink {self.connector} has no committed offset yet (group {self.group}): "
                "name its topics with --topic, or look for its name with tieline offsets list"
            )
        spans = self._store.spans(names, self._timeout)
        for topic in sorted(names):
            numbers = {partition.partition for partition in spans if partition.topic == topic}
            missing = sorted(set(partitions) - numbers)
            if not numbers:
                raise OffsetsRefusedError(f"there is no topic {topic}; check --topic")
            if missing:
                raise OffsetsRefusedError(f"{topic} has no partition {missing[0]}, only 0 to {max(numbers)}")
        chosen = {
            partition: span
            for partition, span in spans.items()
            if not partitions or partition.partition in partitions
        }
        offsets = self._resolve(target, names, chosen)
        moves = [
            SinkMove(*partition, committed.get(partition), offsets[partition], span)
            for partition, span in sorted(chosen.items())
        ]
        self._protect_changelogs(moves)
        return moves

    def plan_reset(self) -> list[SinkMove]:
        """Return what removing all offsets would do: the sink then starts at the beginning of its topics.

        What was replayed to it before is not read again: the offsets of that topic are kept.
        """
        committed = self._without_replays(self._store.group(self.group, self._timeout).committed)
        if not committed:
            raise OffsetsRefusedError(
                f"the sink {self.connector} has no committed offset (group {self.group})"
            )
        spans = self._store.spans({partition.topic for partition in committed}, self._timeout)
        moves = [
            SinkMove(*partition, offset, None, spans.get(partition, Span(0, 0)))
            for partition, offset in sorted(committed.items())
        ]
        self._protect_changelogs(moves)
        return moves

    def set_sink(self, moves: Iterable[SinkMove]) -> None:
        """Apply planned moves; a move without ``after`` removes all offsets.

        Raises ``OffsetsRefusedError`` while the sink runs.
        """
        self.refuse_if_running()
        after = {TopicPartition(m.topic, m.partition): m.after for m in moves}
        if None in after.values():
            committed = self._store.group(self.group, self._timeout).committed
            kept = {p: offset for p, offset in committed.items() if p.topic == self._replays}
            self._store.remove(self.group, self._timeout)
            if kept:
                self._store.commit(self.group, kept, self._timeout)
        else:
            offsets = {partition: offset for partition, offset in after.items() if offset is not None}
            self._store.commit(self.group, offsets, self._timeout)

    def refuse_if_running(self) -> None:
        """Raise ``OffsetsRefusedError`` while the sink's group has members."""
        members = self._store.group(self.group, self._timeout).members
        if members:
            raise OffsetsRefusedError(
                f"the offsets of {self.connector} cannot be changed: it is running, its group {self.group} "
                f"has the member(s) {', '.join(sorted(members)[:5])}. Stop its workers, wait until their "
                "session has ended, and repeat this"
            )

    def _without_replays(self, committed: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {p: offset for p, offset in committed.items() if p.topic != self._replays}

    def _resolve(
        self, target: OffsetTarget, topics: Collection[str], chosen: Mapping[TopicPartition, Span]
    ) -> Mapping[TopicPartition, int]:
        """Return the offset that a target means in each partition."""
        if target.kind == "earliest":
            return {partition: span.first for partition, span in chosen.items()}
        if target.kind == "latest":
            return {partition: span.end for partition, span in chosen.items()}
        if target.kind == "time":
            return self._store.first_since(topics, target.number, self._timeout)
        for partition, span in sorted(chosen.items()):
            if not span.first <= target.number <= span.end:
                raise OffsetsRefusedError(
                    f"{partition.topic}-{partition.partition} cannot be set to {target.number}: it holds "
                    f"the offsets from {span.first} on, and its next record gets {span.end}. Give one of "
                    "them, or choose other partitions with --topic and --partition"
                )
        return dict.fromkeys(chosen, target.number)

    def _protect_changelogs(self, moves: Iterable[SinkMove]) -> None:
        """Raise ``OffsetsRefusedError`` if a sink that acts would read again what it has acted on."""
        for move in moves:
            # Without an offset it may have acted on everything: its first commit is in flight, or expired.
            before = move.span.end if move.before is None else move.before
            changelog = f"{self.connector}-{move.topic}-changelog"
            goes_back = move.after is None or move.after < before
            if goes_back and self._store.has_changelog(changelog, self._timeout):
                raise OffsetsRefusedError(
                    f"{move.topic}-{move.partition} cannot be set back: {self.connector} keeps a changelog "
                    f"of its actions ({changelog}), and could act a second time on what it reads again. "
                    "Its offsets only move forward; to repeat an action, send a new command"
                )

    def plan_source(self, partition: str, offset: str | None, saved: Mapping[str, str]) -> SourceMove:
        """Return what setting a source partition would do. Both are JSON; offset ``None`` removes it."""
        key = _parse_flat_json(partition, "--partition")
        value = None if offset is None else _parse_flat_json(offset, "--to")
        return SourceMove(key, saved.get(key), value)

    def set_source(self, moves: Sequence[SourceMove]) -> None:
        """Apply planned moves."""
        self._store.save_source(self.connector, {m.partition: m.after for m in moves}, self._timeout)


def refuse_if_worker_runs(connector: str, data_dir: Path) -> None:
    """Raise ``OffsetsRefusedError`` while a worker on this folder runs the connector.

    For a source on Kafka there is no other sign, so a worker on another folder is not noticed.
    """
    for status in statuses(data_dir):
        if status["running"] and connector in (status.get("connectors") or {}):
            raise OffsetsRefusedError(
                f"the offsets of {connector} cannot be changed: it is running, in process "
                f"{status.get('pid')}. Stop its worker, and repeat this"
            )


def known_connectors(store: OffsetAdmin, timeout: float = 10.0) -> dict[str, str]:
    """Return every connector that has offsets, with its type: ``sink`` or ``source``."""
    sinks = {g.removeprefix(_GROUP): "sink" for g in store.groups(timeout) if g.startswith(_GROUP)}
    return {**dict.fromkeys(store.sources(timeout), "source"), **sinks}


def _parse_flat_json(text: str, option: str) -> str:
    """Return a source partition or offset in its canonical form. Raises ``OffsetsRefusedError``."""
    try:
        value: Any = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise OffsetsRefusedError(f"{option}: not JSON: {error}") from None
    if not isinstance(value, dict) or any(isinstance(item, (list, dict)) for item in value.values()):
        raise OffsetsRefusedError(
            f"{option}: a source's partitions and offsets are flat JSON objects, such as "
            f"{json.dumps({'filename': 'in.txt'})}; tieline offsets list shows them"
        )
    return canonical(value)
