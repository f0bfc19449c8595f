"""``tieline dlq``: list, show, replay and drop dead letters, beside a running worker."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated

import typer

from tieline.api import RetriableError, StartupError
from tieline.cli.commands.consume import View
from tieline.cli.connection import (
    BootstrapServers,
    BrokerOptions,
    ConnectorFiles,
    DataDir,
    WorkerFile,
    say,
)
from tieline.cli.dead_letters.options import (
    All,
    Cause,
    Conditions,
    Connector,
    DeadLetterTopic,
    Everything,
    JobId,
    Letters,
    OpenedLetters,
    Output,
    Since,
    Until,
    Yes,
    open_job_log,
    open_letters,
)
from tieline.cli.dead_letters.screen import JsonScreen, LetterScreen, ReadProgress, ReplayProgress, TextScreen
from tieline.dead_letters.jobs import CANCELLED, DROP, PAUSED, REPLAY, RUNNING
from tieline.runtime.task.clock import Clock
from tieline.topics.dead_letters.conversion import Conversions
from tieline.topics.dead_letters.display import LetterView
from tieline.topics.dead_letters.replay import Replay
from tieline.topics.dead_letters.targets import CommandTopics
from tieline.topics.dead_letters.work import (
    begin_replay,
    drop_letters,
    find_letters,
    list_causes,
    new_job,
    request,
)
from tieline.topics.decoder import Decoder, ValueFormat

_TRIED = 1_000
"""Letters that a dry run converts."""

dlq = typer.Typer(
    help="Dead letters: list their causes, show, replay and drop them. Nothing is ever deleted. The files of "
    "connectors name the topics of dead letters, the converters and the transforms.",
    no_args_is_help=True,
)


@dlq.command("list")
def list_letters(
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    files: ConnectorFiles = None,
    topic: DeadLetterTopic = None,
    cause: Cause = None,
    since: Since = None,
    until: Until = None,
    connector: Connector = None,
    closed: All = False,
    output: Output = View.AUTO,
) -> None:
    """Show the causes of dead letters, with count, first and last time, and one example in words.

    Exit status: 0; 1 if the broker is unavailable or refuses; 2 if nothing was started.
    """
    selection = Conditions(cause, since, until, connector).selection()
    screen = _screen(output)
    with open_letters(BrokerOptions(worker, bootstrap_servers, data_dir), files, topic) as opened:
        view = _view(opened, Conversions({}, opened.session.broker))
        for name in opened.topics:
            groups = list_causes(
                opened.session.broker,
                name,
                opened.jobs,
                selection,
                closed=closed,
                progress=ReadProgress(Clock()).show,
            )
            screen.groups(name, [view.group(name, group) for group in groups])


@dlq.command()
def show(
    letters: Letters = None,
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    files: ConnectorFiles = None,
    topic: DeadLetterTopic = None,
    cause: Cause = None,
    since: Since = None,
    until: Until = None,
    connector: Connector = None,
    closed: All = False,
    limit: Annotated[int, typer.Option(min=1, max=10**9, help="Show at most this many letters.")] = 10,
    full: Annotated[bool, typer.Option("--full", help="Do not cut long values.")] = False,
    output: Output = View.AUTO,
) -> None:
    """Show letters: the record as far as it can be decoded, its headers, the cause, and what became of it.

    Letters that are named are shown even if they were replayed or dropped. Letters of Kafka Connect, Kafka
    Streams and Spring can be read as well.
    """
    selection = Conditions(cause, since, until, connector, letters).selection()
    screen = _screen(output)
    shown = 0
    with (
        open_letters(BrokerOptions(worker, bootstrap_servers, data_dir), files, topic) as opened,
        ExitStack() as end,
    ):
        conversions = Conversions(opened.plans, opened.session.broker, dry=True)
        end.callback(conversions.close)
        view = _view(opened, conversions, full=full)
        for name in opened.topics:
            for letter, mark in find_letters(
                opened.session.broker,
                name,
                opened.jobs,
                selection,
                closed=closed or bool(letters),
                progress=ReadProgress(Clock()).show,
            ):
                if shown >= limit:
                    say(f"only the first {limit} are shown; --limit shows more")
                    return
                screen.letter({"topic": name, **view.letter(letter, mark)})
                shown += 1
    if not shown:
        say("no letter is selected")


@dlq.command()
def replay(
    letters: Letters = None,
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    files: ConnectorFiles = None,
    topic: DeadLetterTopic = None,
    cause: Cause = None,
    since: Since = None,
    until: Until = None,
    connector: Connector = None,
    everything: Everything = False,
    to_connector: Annotated[
        str | None, typer.Option(help="Replay to this connector. Default: the one that each letter names.")
    ] = None,
    to_topic: Annotated[
        str | None, typer.Option(help="Replay to this topic, where every group sees the records.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the records before and after, and replay nothing."),
    ] = False,
    rate: Annotated[
        float, typer.Option(min=0, max=1e6, help="Letters per second; 0: without a limit.")
    ] = 100.0,
    max_attempts: Annotated[
        int, typer.Option(min=1, max=1000, help="Refuse letters that were replayed so often already.")
    ] = 3,
    wait: Annotated[
        float,
        typer.Option(min=0, max=1e6, help="Seconds to wait while the connector makes no progress."),
    ] = 60.0,
    limit: Annotated[int, typer.Option(min=1, max=10**6, help="Records that a dry run shows.")] = 10,
    output: Output = View.AUTO,
) -> None:
    """Replay letters: by default to the connector alone, so that other groups do not see the records again.

    The job is recorded. Ctrl-C or SIGTERM cancels it and prints what remains; the same command continues it,
    also after kill -9, and replays nothing twice. Pause it with tieline dlq pause. Commands are never
    replayed. Exit status: 0 nothing remains; 1 something remains; 2 nothing was replayed.
    """
    if to_connector is not None and to_topic is not None:
        raise StartupError("give either --to-connector or --to-topic")
    conditions = Conditions(cause, since, until, connector, letters)
    selection = conditions.required(everything)
    screen = _screen(output)
    options = BrokerOptions(worker, bootstrap_servers, data_dir)
    with open_letters(options, files, topic, one=True) as opened, ExitStack() as end:
        broker, (name,) = opened.session.broker, opened.topics
        commands = CommandTopics(broker, _sinks(opened), opened.session.schemas)
        _check_target(opened, commands, to_connector, to_topic)
        job = new_job(
            broker,
            REPLAY,
            name,
            selection,
            conditions.to_dict(),
            to_topic=to_topic or "",
            to_connector=to_connector or "",
            max_attempts=max_attempts,
        )
        if not dry_run:
            job = begin_replay(opened.log, job)
        conversions = Conversions(opened.plans, broker, dry=dry_run)
        end.callback(conversions.close)
        running = Replay(broker, opened.log, job, conversions, commands)
        running.progress = ReadProgress(Clock()).show
        ledger = running.count()
        if dry_run:
            _dry_run(running, _view(opened, conversions), screen, limit)
            return
        if not ledger.selected:
            screen.ledger(job, ledger)
            if ledger.refused:
                raise StartupError("nothing was replayed: every selected letter is refused, see above")
            return
        say(f"replay {job.id}: {ledger.selected} letter(s) of {name}; Ctrl-C cancels it")
        progress = ReplayProgress(Clock())
        running.report = progress.show
        try:
            with _cancel_on_signals(running):
                ledger = running.run(rate, wait)
        except RetriableError:
            say(f"the job {job.id} is interrupted; the same command continues it", error=True)
            raise
        screen.ledger(running.job, ledger)
    if ledger.remaining:
        raise typer.Exit(1)


@dlq.command()
def drop(
    letters: Letters = None,
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    files: ConnectorFiles = None,
    topic: DeadLetterTopic = None,
    cause: Cause = None,
    since: Since = None,
    until: Until = None,
    connector: Connector = None,
    everything: Everything = False,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the job.")] = "",
    yes: Yes = False,
) -> None:
    """Mark letters as dropped, so that they are neither listed nor replayed. They stay in their topic."""
    conditions = Conditions(cause, since, until, connector, letters)
    selection = conditions.required(everything)
    options = BrokerOptions(worker, bootstrap_servers, data_dir)
    with open_letters(options, files, topic, one=True) as opened:
        broker, (name,) = opened.session.broker, opened.topics
        groups = list_causes(broker, name, opened.jobs, selection, progress=ReadProgress(Clock()).show)
        number = sum(group.count for group in groups)
        if not number:
            say("no letter is selected")
            return
        job = new_job(broker, DROP, name, selection, conditions.to_dict(), reason=reason)
        question = f"mark {number} letter(s) of {name} in {len(groups)} cause(s) as dropped?"
        if not yes and not typer.confirm(question, err=True):
            raise typer.Exit(1)
        say(f"job {job.id}: {drop_letters(broker, opened.log, job)} letter(s) of {name} are dropped")


@dlq.command("jobs")
def list_jobs(
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    output: Output = View.AUTO,
) -> None:
    """Show all replays and drops: who, when, what, and their ledgers."""
    screen = _screen(output)
    with open_job_log(BrokerOptions(worker, bootstrap_servers, data_dir)) as (_, log):
        screen.jobs(sorted(log.read().jobs.values(), key=lambda job: job.at))


@dlq.command()
def pause(
    job: JobId,
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
) -> None:
    """Pause a running replay within about a second. It keeps what it has done."""
    _ask(BrokerOptions(worker, bootstrap_servers, data_dir), job, PAUSED)


@dlq.command()
def resume(
    job: JobId,
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
) -> None:
    """Resume a paused replay whose process still runs."""
    _ask(BrokerOptions(worker, bootstrap_servers, data_dir), job, RUNNING)


@dlq.command()
def cancel(
    job: JobId,
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
) -> None:
    """Cancel a running replay from elsewhere, as Ctrl-C does. The same replay command continues it."""
    _ask(BrokerOptions(worker, bootstrap_servers, data_dir), job, CANCELLED)


def _ask(options: BrokerOptions, job: str, state: str) -> None:
    with open_job_log(options) as (_, log):
        asked = request(log, job, state)
        say(f"the replay {job} of {asked.letters} will be {state}")


def _view(opened: OpenedLetters, conversions: Conversions, *, full: bool = False) -> LetterView:
    decoder = Decoder(ValueFormat.AUTO, opened.session.broker, opened.session.registry)
    return LetterView(decoder, conversions, full=full)


def _sinks(opened: OpenedLetters) -> set[str]:
    """Return the names of connectors that may keep a changelog."""
    groups = opened.session.broker.offsets.groups(10.0)
    known = {group.removeprefix("connect-") for group in groups if group.startswith("connect-")}
    return {*opened.plans, *known}


def _check_target(
    opened: OpenedLetters, commands: CommandTopics, to_connector: str | None, to_topic: str | None
) -> None:
    if to_connector is not None and to_connector not in opened.plans:
        raise StartupError(f"--to-connector: add the file of {to_connector} with -c FILE")
    if to_topic is None:
        return
    if to_topic not in opened.session.broker.topic_names():
        raise StartupError(f"--to-topic: {opened.session.name} has no topic {to_topic}")
    if to_topic in opened.topics:
        raise StartupError(f"--to-topic: {to_topic} is the topic of dead letters itself")
    if owner := commands.owner(to_topic):
        raise StartupError(
            f"--to-topic: {to_topic} is a topic of commands, of the connector {owner}, and commands are "
            "never replayed"
        )


def _dry_run(running: Replay, view: LetterView, screen: LetterScreen, limit: int) -> None:
    ledger = running.ledger
    tried: dict[str, int] = {}
    for number, letter in enumerate(running.preview(_TRIED)):
        shown = view.dry_run(letter, running.convert(letter))
        tried[shown["outcome"]] = tried.get(shown["outcome"], 0) + 1
        if number < limit:
            screen.dry_run(shown)
    screen.dry_run_summary(tried, ledger)


@contextmanager
def _cancel_on_signals(running: Replay) -> Iterator[None]:
    """Cancel the replay on the first Ctrl-C or SIGTERM; a second Ctrl-C ends the process at once."""

    def cancel_replay(number: int, _: object) -> None:
        running.stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if number == signal.SIGINT:
            say("cancelling; Ctrl-C again ends it at once")

    before = {number: signal.signal(number, cancel_replay) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _screen(output: View) -> LetterScreen:
    is_text = output is View.ROWS or (output is View.AUTO and sys.stdout.isatty())
    return TextScreen() if is_text else JsonScreen()
