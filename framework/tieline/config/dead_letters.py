"""The settings of dead letters, which sources and sinks have alike; the keys are Kafka Connect's."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator

from tieline.api import Config, setting
from tieline.api.config import TopicName
from tieline.config.unsupported import NO_COPIES

_TOPIC = "errors.deadletterqueue.topic.name"
_NEEDS_TOPIC = (
    "is required with errors.tolerance=all: without it, records that fail would be skipped unnoticed. Give "
    "the name of a topic, such as dead-letters"
)
_NO_EFFECT = "has no effect while errors.tolerance is none. Set errors.tolerance=all, or remove this setting"
_WINDOW = re.compile(r"(\d{1,9})/(\d{1,9})")
_LARGEST_WINDOW = 100_000

Tolerance = Annotated[
    Literal["none", "all"], BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
]
"""As in Kafka Connect, upper and lower case do not matter."""


class Window(NamedTuple):
    """At most ``tolerated`` of the last ``records`` records may fail."""

    tolerated: int
    records: int


class DeadLetterQueue(NamedTuple):
    """Where a connector's dead letters go, and what is logged about them."""

    topic: str
    replication: int = -1
    context: bool = True
    """Whether letters have headers with the cause."""
    window: Window | None = None
    log: bool = False
    log_records: bool = False
    """Whether the log also shows what may contain data: the error's message and how the record begins."""


class DeadLetterSettings(Config):
    """What a connector does with a record that can never be handled."""

    errors_tolerance: Tolerance = setting(
        "errors.tolerance",
        "none",
        doc="What happens to a record that can never be handled. none: it stops the task. all: it becomes a "
        "dead letter, and the task continues; errors.deadletterqueue.topic.name is then required.",
    )
    errors_tolerance_window: str = setting(
        "errors.tolerance.window",
        "25/30",
        doc="How many of the last records may be bad before the task stops: 25/30 is 25 of the last 30. A "
        "broken converter then makes 25 dead letters and not a million. off: no limit.",
    )
    dead_letter_topic: TopicName = setting(
        _TOPIC,
        "",
        doc="The topic of dead letters. Connectors may share one. A missing topic is created with one "
        "partition, without a limit of time, for records as large as the client allows.",
    )
    dead_letter_replication: int = setting(
        "errors.deadletterqueue.topic.replication.factor",
        -1,
        ge=-1,
        le=1_000,
        doc="Replication of a new topic of dead letters. -1: the broker's default (Kafka Connect: 3).",
    )
    dead_letter_context: bool = setting(
        "errors.deadletterqueue.context.headers.enable",
        True,
        doc="Whether a dead letter has headers with its origin and cause (Kafka Connect: false). Without "
        "them letters can neither be grouped nor recognized when they repeat.",
    )
    errors_log_enable: bool = setting(
        "errors.log.enable", False, doc="Whether each dead letter is logged with its position and cause."
    )
    errors_log_include_messages: bool = setting(
        "errors.log.include.messages",
        False,
        doc="Whether that line also has the error's message and the beginning of key and value.",
    )

    @property
    def dead_letters(self) -> DeadLetterQueue | None:
        """Where dead letters go; ``None`` if a data error stops the task."""
        if self.errors_tolerance == "none":
            return None
        return DeadLetterQueue(
            self.dead_letter_topic,
            self.dead_letter_replication,
            self.dead_letter_context,
            parse_window(self.errors_tolerance_window),
            self.errors_log_enable,
            self.errors_log_include_messages,
        )

    def problems(self) -> list[tuple[str, str]]:
        """Return what would lose records unnoticed, and what has no effect."""
        problems = super().problems()
        if self.errors_tolerance == "all" and not self.dead_letter_topic:
            problems.append((_TOPIC, _NEEDS_TOPIC))
        if self.errors_tolerance == "none" and self.dead_letter_topic:
            problems.append((_TOPIC, _NO_EFFECT))
        if self.dead_letter_replication == 0:
            problems.append(("errors.deadletterqueue.topic.replication.factor", NO_COPIES))
        try:
            parse_window(self.errors_tolerance_window)
        except ValueError as error:
            problems.append(("errors.tolerance.window", str(error)))
        return problems


def parse_window(text: str) -> Window | None:
    """Return the window of a setting, ``None`` for ``off``. Raises ``ValueError`` with the fix."""
    if text.strip().lower() == "off":
        return None
    parts = _WINDOW.fullmatch(text.strip())
    if parts is None:
        raise ValueError("is not TOLERATED/RECORDS, such as 25/30, and not off")
    tolerated, records = int(parts[1]), int(parts[2])
    if not tolerated < records <= _LARGEST_WINDOW:
        raise ValueError(
            f"tolerates {tolerated} of the last {records} records: the first number must be less than the "
            f"second, which is at most {_LARGEST_WINDOW}. off tolerates all"
        )
    return Window(tolerated, records)
