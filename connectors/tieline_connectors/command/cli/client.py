"""Sending commands over a worker's topics, and following what becomes of them."""

from __future__ import annotations

import difflib
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import typer

from tieline.api import RecordMetadata, RetriableError, SourceRecord
from tieline.api.commands import TopicClient, TopicFollower
from tieline_connectors.command.cli import parsing
from tieline_connectors.command.cli.display import Screen
from tieline_connectors.command.cli.options import AWAY, INTERRUPTED
from tieline_connectors.command.cli.parsing import Form, Wish
from tieline_connectors.command.cli.wait import NO_RESULT, Watch
from tieline_connectors.command.model.parsing import is_old

_BATCH = 500
_AFTER_EXPIRY = 10.0
"""Seconds after a command's expiry until no result is expected any more."""
_OLD_WAIT = 70.0
_LOOK = 0.25


class Completion(NamedTuple):
    """What a command gets that it does not say itself; microseconds.

    ``key``: to sign with. ``platform``: the one that it is for, if that is said.
    """

    options: Mapping[str, Any]
    issuer: str
    now: int
    expires_at: int
    key: bytes | None = None
    platform: str | None = None


class Outgoing(NamedTuple):
    """A record to send, the id of its command (none: the record's own), and how long a result may take."""

    record: SourceRecord
    command_id: str | None
    seconds: float


class Sender:
    """Sends over one connection, and shows the results of what it has sent."""

    def __init__(
        self, topics: TopicClient, results: str, create: bool, screen: Screen, unnamed: str | None = None
    ) -> None:
        """``results``: the topic of results; ``create``: make topics of commands that are not there.

        ``unnamed``: a topic that nobody has typed, so that it is no slip: the first command makes it.
        """
        self._unnamed = unnamed
        self._topics = topics
        self._create = create
        self._screen = screen
        self._results = results
        self._reader: TopicFollower | None = None

    def deliver(self, outgoing: Sequence[Outgoing], wait: float | None) -> int:
        """Send all and wait; the exit status.

        Raises ``ValueError`` if a topic does not exist, ``typer.Exit`` when interrupted, and what
        ``TopicClient.send`` raises.
        """
        self._look_for({out.record.topic for out in outgoing})
        if self._reader is None and wait != 0:
            self._reader = self._topics.reader(self._results)  # before anything is sent: it misses nothing
        started = time.monotonic()
        ids: list[str] = []
        for first in range(0, len(outgoing), _BATCH):
            batch = outgoing[first : first + _BATCH]
            placed = self._send(batch, len(ids))
            ids += [
                out.command_id or self._topics.record_id(at) for out, at in zip(batch, placed, strict=True)
            ]
        if wait == 0:
            self._say_sent(ids, "")
            return 0
        self._say_sent(ids, "; waiting for what becomes of it, Ctrl-C stops waiting")
        seconds = max(out.seconds for out in outgoing) if wait is None else wait
        return self._wait(Watch(ids), started, time.monotonic() + seconds, len(ids) > 1)

    def _look_for(self, wanted: Collection[str]) -> None:
        if self._create:
            return
        there = self._topics.names()
        for topic in sorted(wanted):
            if topic in there:
                continue
            near = similar(topic, [name for name in there if name != self._results])
            if near:
                way_out = f"did you mean {', '.join(near)}? Then give --topic {near[0]}; or --create makes it"
                raise ValueError(f"there is no topic {topic}; {way_out}")
            if topic != self._unnamed:
                raise ValueError(f"there is no topic {topic}; run the same with --create, which makes it")
            self._screen.say(f"there was no topic {topic}; it is made now", "dim")

    def _send(self, batch: Sequence[Outgoing], sent: int) -> list[RecordMetadata]:
        try:
            return self._topics.send([out.record for out in batch])
        except (RetriableError, KeyboardInterrupt) as error:
            first = batch[0].command_id
            ours = f"its id is {first}: with --id {first} it may be sent again and is executed once at most"
            told = ours if len(batch) == 1 and first else f"{sent} were sent before it"
            self._screen.say(f"perhaps sent, perhaps not ({str(error) or 'interrupted'}); {told}", "red")
            raise typer.Exit(AWAY if isinstance(error, RetriableError) else INTERRUPTED) from None

    def _wait(self, watch: Watch, started: float, until: float, several: bool) -> int:
        assert self._reader is not None
        away = False
        try:
            while watch.waiting and (left := until - time.monotonic()) > 0:
                try:
                    found = self._reader.poll(min(left, _LOOK))
                    away = False
                except RetriableError as error:
                    if not away:
                        self._screen.say(f"the broker is away, results come later: {error}", "yellow")
                    away = True
                    time.sleep(min(left, _LOOK))
                    continue
                for record in found:
                    if watch.sees(record.value):
                        whose = f"{record.value['command_id']}  " if several else ""
                        self._screen.result(record.value, f"{whose}{time.monotonic() - started:8.3f} s")
        except KeyboardInterrupt:
            self._screen.say(
                f"not waited for: {_commands(watch.waiting)} may still be executed, until the expiry; "
                "tieline command history shows what becomes of it",
                "yellow",
            )
            raise typer.Exit(INTERRUPTED) from None
        if several:
            counted = ", ".join(f"{number} {end}" for end, number in sorted(watch.ends.items()))
            self._screen.say(f"{_commands(sum(watch.ends.values()))}: {counted}")
        if watch.ends[NO_RESULT]:
            self._screen.say(
                f"no result of {_commands(watch.waiting)} in time; does a command sink read this topic, and "
                f"tell {self._results}?",
                "red",
            )
        return watch.status

    def _say_sent(self, ids: Sequence[str], more: str) -> None:
        what = f"command {ids[0]}" if len(ids) == 1 else _commands(len(ids))
        self._screen.say(f"sent {what}{more}", "dim")


def similar(topic: str, there: Collection[str]) -> list[str]:
    """TopicClient that may have been meant, the nearest first."""
    names = sorted(name for name in there if not name.endswith("-changelog"))
    near = difflib.get_close_matches(topic, names, n=3)
    return near or [name for name in names if topic.removesuffix("s") in name][:3]


def outgoing(wish: Wish, topic: str, form: Form | None, complete: Completion) -> Outgoing:
    """What is sent for a wish; ``form`` none: the one that it has. Raises ``ValueError``."""
    to = wish.topic or topic
    old = is_old(wish.value)
    chosen: Form = form if form is not None else "old" if old else "avro"
    if chosen == "old":
        if not old:
            raise ValueError("the old form has a point and a value and nothing else; leave out --form old")
        if complete.key is not None or complete.platform is not None or _given(complete.options):
            raise ValueError("the old form carries no options and no signature; choose --form avro")
        return Outgoing(parsing.record(wish.value, to, "old"), None, _OLD_WAIT)
    value = parsing.as_new(wish.value) if old else wish.value
    value = {"expires_at": complete.expires_at, **_given(complete.options), **_given(value)}
    value = parsing.completed(value, command_id=str(uuid.uuid4()), issuer=complete.issuer, now=complete.now)
    if complete.platform is not None:
        value = {"platform": complete.platform, **value}
    if complete.key is not None:
        value = {"topic": to, **value}
        value = parsing.signed(value, complete.key)
    command = parsing.checked(value)
    seconds = (command.expires_at - complete.now) / 1_000_000 + _AFTER_EXPIRY
    return Outgoing(parsing.record(value, to, chosen), command.command_id, seconds)


def _given(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if item is not None}


def _commands(number: int) -> str:
    return "1 command" if number == 1 else f"{number} commands"
