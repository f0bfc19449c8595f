"""Send commands over a worker's topics, and follow their results."""

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
from tieline_connectors.command.cli.options import INTERRUPTED, UNAVAILABLE
from tieline_connectors.command.cli.parsing import CommandDraft, Form
from tieline_connectors.command.cli.wait import NO_RESULT, CommandTracker
from tieline_connectors.command.model.parsing import is_old

_BATCH = 500
_AFTER_EXPIRY = 10.0
"""Seconds to wait for a result after a command's expiry."""
_OLD_WAIT = 70.0
_POLL_TIME = 0.25


class DraftDefaults(NamedTuple):
    """What a draft gets if it leaves it out; times in microseconds.

    ``key``: to sign with. ``platform``: the platform that it is for, ``None`` for any.
    """

    options: Mapping[str, Any]
    issuer: str
    now: int
    expires_at: int
    key: bytes | None = None
    platform: str | None = None


class OutgoingCommand(NamedTuple):
    """A record to send, the id of its command (``None``: the record's), and the longest time to a result."""

    record: SourceRecord
    command_id: str | None
    seconds: float


class CommandClient:
    """Sends commands over one connection, and shows their results."""

    def __init__(
        self, topics: TopicClient, results: str, create: bool, screen: Screen, unnamed: str | None = None
    ) -> None:
        """``results``: the topic of results; ``create``: create missing topics of commands.

        ``unnamed``: the default topic if the operator typed none: it is not a typo, and is created if
        missing.
        """
        self._unnamed = unnamed
        self._topics = topics
        self._create = create
        self._screen = screen
        self._results = results
        self._reader: TopicFollower | None = None

    def deliver(self, outgoing: Sequence[OutgoingCommand], wait: float | None) -> int:
        """Send all commands and wait; return the exit status.

        Raises ``ValueError`` if a topic does not exist, ``typer.Exit`` when interrupted, and what
        ``TopicClient.send`` raises.
        """
        self._check_topics({out.record.topic for out in outgoing})
        # Opened before anything is sent, so that it misses no result.
        reader = self._open_reader() if wait != 0 else None
        started = time.monotonic()
        ids: list[str] = []
        for first in range(0, len(outgoing), _BATCH):
            batch = outgoing[first : first + _BATCH]
            sent = self._send(batch, len(ids))
            ids += [
                out.command_id or self._topics.record_id(metadata)
                for out, metadata in zip(batch, sent, strict=True)
            ]
        if reader is None:
            self._report_sent(ids, "")
            return 0
        self._report_sent(ids, "; waiting for the result, Ctrl-C stops waiting")
        seconds = max(out.seconds for out in outgoing) if wait is None else wait
        return self._wait(reader, CommandTracker(ids), started, time.monotonic() + seconds, len(ids) > 1)

    def _check_topics(self, wanted: Collection[str]) -> None:
        if self._create:
            return
        existing = self._topics.names()
        for topic in sorted(wanted):
            if topic in existing:
                continue
            near = similar(topic, [name for name in existing if name != self._results])
            if near:
                fix = (
                    f"did you mean {', '.join(near)}? Then use --topic {near[0]}; or create it with --create"
                )
                raise ValueError(f"the topic {topic} does not exist; {fix}")
            if topic != self._unnamed:
                raise ValueError(f"the topic {topic} does not exist; create it with --create")
            self._screen.say(f"the topic {topic} does not exist; creating it", "dim")

    def _send(self, batch: Sequence[OutgoingCommand], sent: int) -> list[RecordMetadata]:
        try:
            return self._topics.send([out.record for out in batch])
        except (RetriableError, KeyboardInterrupt) as error:
            first = batch[0].command_id
            again = f"its id is {first}: send it again with --id {first}, and it is executed at most once"
            message = again if len(batch) == 1 and first else f"{sent} were sent before it"
            self._screen.say(
                f"it is unknown whether it was sent ({str(error) or 'interrupted'}); {message}", "red"
            )
            raise typer.Exit(UNAVAILABLE if isinstance(error, RetriableError) else INTERRUPTED) from None

    def _open_reader(self) -> TopicFollower:
        """Return the reader of results, which the first call opens."""
        if self._reader is None:
            self._reader = self._topics.reader(self._results)
        return self._reader

    def _wait(
        self, reader: TopicFollower, tracker: CommandTracker, started: float, until: float, is_many: bool
    ) -> int:
        unavailable = False
        try:
            while tracker.waiting and (left := until - time.monotonic()) > 0:
                try:
                    records = reader.poll(min(left, _POLL_TIME))
                    unavailable = False
                except RetriableError as error:
                    if not unavailable:
                        self._screen.say(f"the broker is unavailable, results come later: {error}", "yellow")
                    unavailable = True
                    time.sleep(min(left, _POLL_TIME))
                    continue
                for record in records:
                    if tracker.add(record.value):
                        whose = f"{record.value['command_id']}  " if is_many else ""
                        self._screen.result(record.value, f"{whose}{time.monotonic() - started:8.3f} s")
        except KeyboardInterrupt:
            self._screen.say(
                f"stopped waiting: {_count_of(tracker.waiting)} may still be executed, until the expiry; "
                "tieline command history shows the result",
                "yellow",
            )
            raise typer.Exit(INTERRUPTED) from None
        if is_many:
            counted = ", ".join(f"{number} {end}" for end, number in sorted(tracker.ends.items()))
            self._screen.say(f"{_count_of(sum(tracker.ends.values()))}: {counted}")
        if tracker.ends[NO_RESULT]:
            self._screen.say(
                f"no result of {_count_of(tracker.waiting)} in time; does a command sink read this topic and "
                f"write to {self._results}?",
                "red",
            )
        return tracker.status

    def _report_sent(self, ids: Sequence[str], suffix: str) -> None:
        what = f"command {ids[0]}" if len(ids) == 1 else _count_of(len(ids))
        self._screen.say(f"sent {what}{suffix}", "dim")


def similar(topic: str, existing: Collection[str]) -> list[str]:
    """Return existing topics with a similar name, the most similar first."""
    names = sorted(name for name in existing if not name.endswith("-changelog"))
    near = difflib.get_close_matches(topic, names, n=3)
    return near or [name for name in names if topic.removesuffix("s") in name][:3]


def prepare(draft: CommandDraft, topic: str, form: Form | None, defaults: DraftDefaults) -> OutgoingCommand:
    """Return what to send for a draft; ``form`` ``None``: keep its form. Raises ``ValueError``."""
    target = draft.topic or topic
    old = is_old(draft.value)
    chosen: Form = form if form is not None else "old" if old else "avro"
    if chosen == "old":
        if not old:
            raise ValueError("the old form has only a point and a value; remove --form old")
        if defaults.key is not None or defaults.platform is not None or _without_none(defaults.options):
            raise ValueError("the old form has no options and no signature; use --form avro")
        return OutgoingCommand(parsing.to_record(draft.value, target, "old"), None, _OLD_WAIT)
    value = parsing.to_new_form(draft.value) if old else draft.value
    value = {"expires_at": defaults.expires_at, **_without_none(defaults.options), **_without_none(value)}
    value = parsing.complete(value, command_id=str(uuid.uuid4()), issuer=defaults.issuer, now=defaults.now)
    if defaults.platform is not None:
        value = {"platform": defaults.platform, **value}
    if defaults.key is not None:
        value = {"topic": target, **value}
        value = parsing.add_signature(value, defaults.key)
    command = parsing.check_command(value)
    seconds = (command.expires_at - defaults.now) / 1_000_000 + _AFTER_EXPIRY
    return OutgoingCommand(parsing.to_record(value, target, chosen), command.command_id, seconds)


def _without_none(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if item is not None}


def _count_of(number: int) -> str:
    return "1 command" if number == 1 else f"{number} commands"
