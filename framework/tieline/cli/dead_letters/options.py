"""The options of ``tieline dlq``, and what they open."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from tieline.api import StartupError
from tieline.api.commands import parse_time
from tieline.cli.commands.consume import View
from tieline.cli.connection import BrokerOptions, open_session
from tieline.config.files import read_settings
from tieline.config.plan import check_plan
from tieline.config.planned import ConnectorPlan
from tieline.dead_letters.jobs import Jobs
from tieline.dead_letters.selection import Selection
from tieline.topics.dead_letters.reading import JobLog
from tieline.topics.session import BrokerSession

DeadLetterTopic = Annotated[
    str | None, typer.Option("--topic", help="The topic of dead letters. Default: that of the connectors.")
]
Letters = Annotated[
    list[str] | None,
    typer.Argument(help="Ids of letters, or PARTITION@OFFSET in the topic of dead letters."),
]
Cause = Annotated[
    str | None, typer.Option(help="Only letters of this cause, as list shows it or its beginning.")
]
Since = Annotated[
    str | None, typer.Option(help="Only letters of this time or later: ISO 8601, or 15m, 2h, 7d ago.")
]
Until = Annotated[str | None, typer.Option(help="Only letters before this time.")]
Connector = Annotated[str | None, typer.Option("--connector", help="Only letters of this connector.")]
All = Annotated[
    bool, typer.Option("--all", help="Also letters that were replayed or dropped, marked as such.")
]
Output = Annotated[
    View, typer.Option("--format", help="Text, or lines of JSON; auto prints text on a terminal.")
]
JobId = Annotated[str, typer.Argument(help="The job, as tieline dlq jobs shows it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for a confirmation.")]
Everything = Annotated[bool, typer.Option("--everything", help="All open letters, without a condition.")]


class OpenedLetters(NamedTuple):
    """The broker with what is known about the connectors, and the jobs."""

    session: BrokerSession
    plans: Mapping[str, ConnectorPlan]
    topics: Sequence[str]
    log: JobLog
    jobs: Jobs


@contextmanager
def open_job_log(
    options: BrokerOptions, secrets: Sequence[str] = ()
) -> Iterator[tuple[BrokerSession, JobLog]]:
    """Open the broker and the topic of jobs. ``secrets``: what no error may show."""
    with open_session(options, offsets=True, secrets=secrets) as session, ExitStack() as end:
        log = JobLog(session.broker)
        end.callback(log.close)
        log.read()
        yield session, log


@contextmanager
def open_letters(
    options: BrokerOptions, files: Sequence[Path] | None, topic: str | None, *, one: bool = False
) -> Iterator[OpenedLetters]:
    """Open the broker, and find the topics of dead letters. ``one``: there must be exactly one."""
    where, settings = options.settings()
    connectors = [(str(path), read_settings(path)) for path in files or ()]
    checked = check_plan(where, settings, connectors)
    plans = {plan.name: plan for plan in checked.connectors}
    queues = [plan.settings.dead_letters for plan in plans.values()]
    topics = [topic] if topic else sorted({queue.topic for queue in queues if queue is not None})
    if not topics:
        raise StartupError(
            "which topic of dead letters? Give --topic NAME, or a connector's file that has "
            "errors.deadletterqueue.topic.name with -c FILE"
        )
    if one and len(topics) > 1:
        raise StartupError(f"give one topic of dead letters with --topic: {', '.join(topics)}")
    with open_job_log(options, checked.secrets) as (session, log):
        existing = session.broker.topic_names()
        missing = [name for name in topics if name not in existing]
        if missing and (topic or len(missing) == len(topics)):
            raise StartupError(
                f"{session.name} has no topic {', '.join(missing)}; a worker creates it when its connector "
                "starts"
            )
        present = [name for name in topics if name in existing]
        yield OpenedLetters(session, plans, present, log, log.jobs)


class Conditions(NamedTuple):
    """Which letters a command is about, as the operator gave it. Times are texts, such as 2h."""

    cause: str | None = None
    since: str | None = None
    until: str | None = None
    connector: str | None = None
    letters: Sequence[str] | None = None

    def selection(self) -> Selection:
        """Return the selection at this moment. Raises ``StartupError``."""
        since, until = _time("--since", self.since), _time("--until", self.until)
        try:
            return Selection.parse(self.cause, since, until, self.connector, tuple(self.letters or ()))
        except ValueError as error:
            raise StartupError(str(error)) from None

    def required(self, everything: bool) -> Selection:
        """Return the selection of a command that changes something. Raises ``StartupError``."""
        selection = self.selection()
        if selection.is_everything and not everything:
            raise StartupError(
                "which letters? Give ids, PARTITION@OFFSET, --cause, --since, --until or --connector, or "
                "--everything"
            )
        return selection

    def to_dict(self) -> dict[str, str]:
        """Return what was given, by which a second run of a command finds its job."""
        given = {
            "cause": self.cause,
            "since": self.since,
            "until": self.until,
            "connector": self.connector,
            "letters": " ".join(sorted(self.letters)) if self.letters else None,
        }
        return {name: text for name, text in given.items() if text is not None}


def _time(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return max(0, int(parse_time(text, dt.datetime.now(dt.timezone.utc)).timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        raise StartupError(f"{option}: {error}") from None
