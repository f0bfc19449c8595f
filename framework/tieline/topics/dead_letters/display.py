"""Letters as data for people and programs: decoded as far as possible, and cut if they are long."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from tieline.broker.records import ConsumedRecord
from tieline.config.planned import SinkPlan
from tieline.dead_letters.groups import CauseGroup, describe
from tieline.dead_letters.jobs import Mark
from tieline.dead_letters.letter import DeadLetter
from tieline.dead_letters.others import PREFIXES
from tieline.topics.dead_letters.conversion import (
    Conversions,
    SinkResult,
    SourceResult,
    as_source_record,
)
from tieline.topics.decoder import Decoded, Decoder
from tieline.topics.printable import json_text, time_text

MAX_CHARACTERS = 64_000
"""Of one value, unless all of it is wanted."""
_MAX_HEADERS = 100


class LetterView:
    """Shows letters. ``full``: without a limit of characters. Used by one thread."""

    def __init__(self, decoder: Decoder, conversions: Conversions, *, full: bool = False) -> None:
        self._decoder = decoder
        self._conversions = conversions
        self._limit = 0 if full else MAX_CHARACTERS

    def letter(self, letter: DeadLetter, mark: Mark | None) -> dict[str, Any]:
        """Return everything about a letter. Raises ``RetriableError`` while schemas are unavailable."""
        key, value = self.content(letter)
        cause = letter.cause
        fields: dict[str, Any] = {
            "letter": _place(letter),
            "id": self._cut(letter.id),
            "cause": letter.fingerprint,
            "connector": letter.connector,
            "task": letter.task,
            "record": self._cut(letter.where),
            "failed": None if letter.failed_at is None else time_text(letter.failed_at),
            "stage": cause.stage,
            "error": self._cut(cause.error),
            "message": self._cut(cause.message),
            "field": self._cut(cause.field),
            "expected": self._cut(cause.expected),
            "fix": self._cut(cause.fix),
            "schema_id": cause.schema_id,
            "raised_by": self._cut(cause.raised_by),
            "written_by": letter.family,
            "timestamp": None if letter.timestamp is None else time_text(letter.timestamp),
            "key": self._shown(key),
            "value": self._shown(value),
            "format": value.format,
            "schema": value.schema,
            "unreadable": value.error,
            "headers": [
                [self._cut(name), None if raw is None else self._cut(_text(raw))]
                for name, raw in letter.headers[:_MAX_HEADERS]
                if not name.startswith(PREFIXES)
            ],
            "replays": letter.attempts,
            "replay_of": self._cut(letter.replay_of),
            "traceback": self._cut(cause.traceback),
        }
        if mark is not None:
            fields |= {
                "state": mark.state,
                "job": mark.job,
                "outcome": mark.outcome,
                "at": time_text(mark.at),
                "replayed_to": None if mark.place is None else "{}-{}@{}".format(*mark.place),
            }
        return {name: shown for name, shown in fields.items() if shown not in (None, "", [])}

    def group(self, topic: str, group: CauseGroup) -> dict[str, Any]:
        """Return a cause with its numbers and one example in words."""
        example = group.example
        return {
            "topic": topic,
            "cause": group.fingerprint,
            "count": group.count,
            "first": None if group.first is None else time_text(group.first),
            "last": None if group.last is None else time_text(group.last),
            "connectors": sorted(group.connectors),
            "stage": example.cause.stage,
            "error": self._cut(example.cause.error),
            "field": self._cut(example.cause.field),
            "states": dict(sorted(group.states.items())),
            "example": {"letter": _place(example), "id": self._cut(example.id)},
            "text": describe(example)[: self._limit or None],
        }

    def content(self, letter: DeadLetter) -> tuple[Decoded, Decoded]:
        """Return key and value, decoded by the connector's converters, else by what they look like."""
        if letter.form is not None:
            try:
                record = as_source_record(letter)
            except (ValueError, RecursionError) as error:
                key, value = self._guessed(letter)
                return key, value._replace(error=str(error))
            name = None if record.value_schema is None else record.value_schema.name
            return Decoded(letter.form.key, record.key), Decoded(letter.form.value, record.value, name)
        key, value = self._guessed(letter)
        conversion = self._conversions.of(letter.connector)
        if conversion is None or not isinstance(conversion.plan, SinkPlan):
            return key, value
        try:
            value = value._replace(data=conversion.read_value(letter), error=None)
        except ValueError as error:
            value = value._replace(error=str(error))
        with suppress(ValueError):  # then it is shown by what it looks like
            key = key._replace(data=conversion.read_key(letter))
        return key, value

    def dry_run(self, letter: DeadLetter, result: SinkResult | SourceResult | None) -> dict[str, Any]:
        """Return a record before and after the present configuration; ``None``: its bytes go to a topic."""
        key, value = self.content(letter)
        fields: dict[str, Any] = {
            "letter": _place(letter),
            "id": self._cut(letter.id),
            "before": {"topic": letter.topic, "key": self._shown(key), "value": self._shown(value)},
        }
        if result is None:
            return {**fields, "outcome": "unchanged"}
        if result.failure is not None:
            stage, cause = result.failure.stage.value, result.failure.cause
            return {**fields, "outcome": "fails again", "failure": self._cut(f"{stage}: {cause}")}
        if result.record is None:
            return {**fields, "outcome": "filtered"}
        record = result.record
        if isinstance(result, SourceResult) and result.data is not None:
            record_key, record_value = result.data.key, result.data.value
        else:
            record_key, record_value = record.key, record.value
        after = {
            "topic": record.topic,
            "key": self._shown(Decoded("", record_key)),
            "value": self._shown(Decoded("", record_value)),
        }
        return {**fields, "outcome": "accepted", "after": after}

    def _guessed(self, letter: DeadLetter) -> tuple[Decoded, Decoded]:
        record = ConsumedRecord(letter.topic, 0, 0, letter.value, letter.key, (), 0)
        (shown,) = self._decoder.decode([record])
        return shown.key, shown.value

    def _shown(self, decoded: Decoded) -> Any:
        """Return data that can be written as JSON, cut if it is long."""
        data = decoded.data
        if isinstance(data, bytes):
            data = _text(data)
        try:
            text = data if isinstance(data, str) else json_text(data)
        except (ValueError, RecursionError) as error:
            return f"cannot be shown: {str(error) or 'nested too deep'}"
        if self._limit and len(text) > self._limit:
            return self._cut(text)
        return data

    def _cut(self, text: str) -> str:
        if not self._limit or len(text) <= self._limit:
            return text
        return f"{text[: self._limit]}… ({len(text) - self._limit} more characters; --full shows them)"


def _place(letter: DeadLetter) -> str:
    """Return the letter's own position, as the option of a command takes it."""
    return "" if letter.stored is None else "{1}@{2}".format(*letter.stored)


def _text(data: bytes) -> str:
    """Return bytes as text; those that are not UTF-8 as Python writes them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "backslashreplace")
