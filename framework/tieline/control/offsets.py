"""Seeing and changing the offsets of a stopped connector: what the command line and REST share.

First a move is planned, which changes nothing and can be shown; then it is made. Everything that refuses
it is an ``OffsetsRefusedError``, whose message says what to do.
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
from tieline.broker.offsets import OffsetStore, Span
from tieline.runtime.task.context import canonical
from tieline.runtime.worker.status_file import statuses

_GROUP = "connect-"


class OffsetsRefusedError(StartupError):
    """A change of offsets that is not possible, or would be wrong; nothing was changed."""


class SinkOffset(NamedTuple):
    """Where a sink is in one partition; None: no offset, or no such partition any more."""

    topic: str
    partition: int
    committed: int | None
    first: int | None
    end: int | None

    @property
    def lag(self) -> int | None:
        """Records behind the end; without a committed offset all there are."""
        if self.end is None or self.first is None:
            return None
        return self.end - (self.first if self.committed is None else self.committed)


class SinkMove(NamedTuple):
    """One partition's offset before and after; ``after`` None removes it."""

    topic: str
    partition: int
    before: int | None
    after: int | None
    span: Span

    @property
    def effect(self) -> str:
        """What the move means for records, in words."""
        now = self.span.first if self.before is None else self.before
        then = self.span.first if self.after is None else self.after
        if then == now:
            return "no change"
        records = f"{abs(then - now)} offset(s)"
        return f"passes over {records}" if then > now else f"reads {records} again"


class SourceMove(NamedTuple):
    """One source partition's offset before and after; None: there is none."""

    partition: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Target:
    """Where offsets are set to: ``earliest``, ``latest``, an offset, or a time (ms since 1970)."""

    kind: str
    number: int = 0

    @staticmethod
    def parse(text: str, now: dt.datetime) -> Target:
        """From a command line. Raises ``OffsetsRefusedError`` with the forms that are known."""
        if text in ("earliest", "latest"):
            return Target(text)
        if text.isascii() and text.isdigit():
            if len(text) > 18:
                raise OffsetsRefusedError(
                    f"the offset {text[:40]} is too large: no partition has so many records"
                )
            return Target("offset", int(text))
        try:
            found = parse_time(text, now)
        except ValueError:
            raise OffsetsRefusedError(
                f"{text[:100]!r} is not a place to set offsets to; known are earliest, latest, an offset "
                "(42), a time (2026-01-31T12:00:00Z) or so long ago (15m, 2h, 7d)"
            ) from None
        return Target("time", max(0, int(found.timestamp() * 1000)))  # to Kafka a negative time is a code


class ConnectorOffsets:
    """The offsets of one connector. ``timeout``: seconds for each question to the broker."""

    def __init__(self, store: OffsetStore, connector: str, timeout: float = 10.0) -> None:
        self.connector = connector
        self.group = f"{_GROUP}{connector}"
        self._store = store
        self._timeout = timeout

    # -- sinks

    def of_sink(self) -> list[SinkOffset]:
        """Every partition of the topics that the sink has committed offsets of."""
        committed = self._store.group(self.group, self._timeout).committed
        spans = self._store.spans({at.topic for at in committed}, self._timeout)
        return [
            SinkOffset(*at, committed.get(at), *(spans.get(at) or (None, None)))
            for at in sorted({*committed, *spans})
        ]

    def plan_set(
        self, target: Target, topics: Collection[str] = (), partitions: Collection[int] = ()
    ) -> list[SinkMove]:
        """What setting would do; without ``topics`` in all that the sink has committed offsets of.

        Raises ``OffsetsRefusedError``.
        """
        committed = self._store.group(self.group, self._timeout).committed
        wanted = set(topics) or {at.topic for at in committed}
        if not wanted:
            raise OffsetsRefusedError(
                f"the sink {self.connector} has no committed offset yet (group {self.group}): "
                "name its topics with --topic, or look for its name with tieline offsets list"
            )
        spans = self._store.spans(wanted, self._timeout)
        for topic in sorted(wanted):
            numbers = {at.partition for at in spans if at.topic == topic}
            missing = sorted(set(partitions) - numbers)
            if not numbers:
                raise OffsetsRefusedError(f"there is no topic {topic}; check --topic")
            if missing:
                raise OffsetsRefusedError(f"{topic} has no partition {missing[0]}, only 0 to {max(numbers)}")
        chosen = {at: span for at, span in spans.items() if not partitions or at.partition in partitions}
        reached = self._reached(target, wanted, chosen)
        moves = [SinkMove(*at, committed.get(at), reached[at], span) for at, span in sorted(chosen.items())]
        self._keep_changelogs(moves)
        return moves

    def plan_reset(self) -> list[SinkMove]:
        """What removing all offsets would do: the sink then begins where its topics do."""
        committed = self._store.group(self.group, self._timeout).committed
        if not committed:
            raise OffsetsRefusedError(
                f"the sink {self.connector} has no committed offset (group {self.group})"
            )
        spans = self._store.spans({at.topic for at in committed}, self._timeout)
        moves = [
            SinkMove(*at, offset, None, spans.get(at, Span(0, 0))) for at, offset in sorted(committed.items())
        ]
        self._keep_changelogs(moves)
        return moves

    def set_sink(self, moves: Iterable[SinkMove]) -> None:
        """Make a planned move; one without ``after`` removes all.

        Raises ``OffsetsRefusedError`` while the sink runs.
        """
        self.refuse_if_running()
        after = {TopicPartition(m.topic, m.partition): m.after for m in moves}
        if None in after.values():
            self._store.forget(self.group, self._timeout)
        else:
            offsets = {at: offset for at, offset in after.items() if offset is not None}
            self._store.commit(self.group, offsets, self._timeout)

    def refuse_if_running(self) -> None:
        """Raises ``OffsetsRefusedError`` while the sink's group has members."""
        members = self._store.group(self.group, self._timeout).members
        if members:
            raise OffsetsRefusedError(
                f"the offsets of {self.connector} cannot be changed: it is running, its group {self.group} "
                f"has the member(s) {', '.join(sorted(members)[:5])}. Stop its workers, wait until their "
                "session has ended, and repeat this"
            )

    def _reached(
        self, target: Target, topics: Collection[str], chosen: Mapping[TopicPartition, Span]
    ) -> Mapping[TopicPartition, int]:
        if target.kind == "earliest":
            return {at: span.first for at, span in chosen.items()}
        if target.kind == "latest":
            return {at: span.end for at, span in chosen.items()}
        if target.kind == "time":
            return self._store.first_since(topics, target.number, self._timeout)
        for at, span in sorted(chosen.items()):
            if not span.first <= target.number <= span.end:
                raise OffsetsRefusedError(
                    f"{at.topic}-{at.partition} cannot be set to {target.number}: it holds the offsets from "
                    f"{span.first} on, and its next record gets {span.end}. Give one of these, or choose "
                    "other partitions with --topic and --partition"
                )
        return dict.fromkeys(chosen, target.number)

    def _keep_changelogs(self, moves: Iterable[SinkMove]) -> None:
        """What a sink did once it must not be asked to do again."""
        for move in moves:
            # Without an offset it may have done all there is: the first one is on its way, or expired.
            before = move.span.end if move.before is None else move.before
            changelog = f"{self.connector}-{move.topic}-changelog"
            back = move.after is None or move.after < before
            if back and self._store.has_changelog(changelog, self._timeout):
                raise OffsetsRefusedError(
                    f"{move.topic}-{move.partition} cannot be set back: {self.connector} keeps a changelog "
                    f"of what it has done ({changelog}), and what it reads again it could do a second time. "
                    "Its offsets only move forward; to do something again, send a new command"
                )

    # -- sources

    def plan_source(self, partition: str, offset: str | None, saved: Mapping[str, str]) -> SourceMove:
        """What setting a source partition (JSON) to an offset (JSON; None removes it) would do."""
        key = _position(partition, "--partition")
        value = None if offset is None else _position(offset, "--to")
        return SourceMove(key, saved.get(key), value)

    def set_source(self, moves: Sequence[SourceMove]) -> None:
        """Make planned moves."""
        self._store.save_source(self.connector, {m.partition: m.after for m in moves}, self._timeout)


def refuse_if_worker_runs(connector: str, data_dir: Path) -> None:
    """Raises ``OffsetsRefusedError`` while a worker on this folder runs the connector.

    Of a source on Kafka there is no other sign: a worker on another folder is not seen.
    """
    for status in statuses(data_dir):
        if status["running"] and connector in (status.get("connectors") or {}):
            raise OffsetsRefusedError(
                f"the offsets of {connector} cannot be changed: it is running, in process "
                f"{status.get('pid')}. Stop its worker, and repeat this"
            )


def known_connectors(store: OffsetStore, timeout: float = 10.0) -> dict[str, str]:
    """Every connector that has offsets: ``sink`` or ``source``, by name."""
    sinks = {g.removeprefix(_GROUP): "sink" for g in store.groups(timeout) if g.startswith(_GROUP)}
    return {**dict.fromkeys(store.sources(timeout), "source"), **sinks}


def _position(text: str, option: str) -> str:
    """A source partition or offset as it is stored. Raises ``OffsetsRefusedError``."""
    try:
        found: Any = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise OffsetsRefusedError(f"{option}: not JSON: {error}") from None
    if not isinstance(found, dict) or any(isinstance(value, (list, dict)) for value in found.values()):
        raise OffsetsRefusedError(
            f"{option}: a source's partitions and offsets are flat JSON objects, such as "
            f"{json.dumps({'filename': 'in.txt'})}; tieline offsets list shows them"
        )
    return canonical(found)
