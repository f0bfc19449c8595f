"""The parts of one run of the lab: started in order, stopped in reverse order, compared at the end."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tieline.api.commands import TopicClient
from tieline.cli.command_context import WorkerCommandContext
from tieline_lab import comparison, kafka, volttron
from tieline_lab.commands_comparison import BusRecords, CommandFindings, judge_commands
from tieline_lab.comparison import ExpectedReadings, Verdict
from tieline_lab.dispatcher import Dispatcher
from tieline_lab.driver import DriverSettings
from tieline_lab.exchange import Exchange
from tieline_lab.mongo import MongoServer
from tieline_lab.observer import Observer
from tieline_lab.process import ProcessError, can_listen, free_port
from tieline_lab.readings_store import HistoryLabStore, LabStore, MongoLabStore, Observed, StoreKind
from tieline_lab.values_comparison import values_of
from tieline_lab.volttron import VolttronPlatform
from tieline_lab.worker import (
    PAGE_PORT,
    PLATFORM_SINKS,
    Endpoints,
    LabWorker,
    count_spooled,
    create_topics,
    write_config,
)

_MARK = "made-by-tieline-lab"


def empty_folder(folder: Path) -> Path:
    """Return the folder, empty; files of an earlier run are removed.

    Raises ``ProcessError`` if the folder contains anything that the lab did not create.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise ProcessError(
            f"{folder} cannot be emptied: the lab did not create its files. Name another folder"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _MARK).touch()
    return folder


class PlantedFaults(NamedTuple):
    """Faults to plant at the end, to see that they are reported."""

    loss: bool = False
    """Delete a stored document."""
    write: bool = False
    """Write a point without a command."""


class StageOptions(NamedTuple):
    """What a run consists of. Its files are in ``folder``."""

    folder: Path
    driver: DriverSettings
    with_kafka: bool
    connectors: Sequence[Path]
    """Files of connectors that the worker runs in addition to the lab's."""
    store: StoreKind = StoreKind.MONGO
    page_port: int | None = None
    """The port of the worker's pages; ``None``: 8083 if it is free, else any."""

    @property
    def config(self) -> Path:
        """The folder with the worker's configuration."""
        return self.folder / "config"


class Servers(NamedTuple):
    """The running servers. Without ``kafka`` the worker uses its local log, without ``mongo`` a file."""

    platform: VolttronPlatform
    mongo: MongoServer | None
    kafka: kafka.KafkaServer | None


class Outcome(NamedTuple):
    """The verdict on a run, and the number of readings that was plausible."""

    verdict: Verdict
    expected: ExpectedReadings


class Stage:
    """A running lab, see ``start_stage``."""

    def __init__(
        self,
        options: StageOptions,
        servers: Servers,
        worker: LabWorker,
        topics: TopicClient,
        store: LabStore,
        say: Callable[[str], None],
    ) -> None:
        self.options = options
        self.servers = servers
        self.worker = worker
        self.store = store
        self.exchange = Exchange(topics)
        self.observer = Observer(servers.platform.connect("observer"))
        self._topics = topics
        self._dispatcher = Dispatcher(topics, options.driver.topics())
        self._say = say

    @property
    def broker(self) -> str:
        """The name of the broker between source and sinks."""
        return "local log" if self.servers.kafka is None else "Apache Kafka"

    @property
    def pages(self) -> str:
        """The address of the worker's first page."""
        return f"http://127.0.0.1:{self.options.page_port}/ui/"

    @property
    def readings_topics(self) -> list[str]:
        """The topics of the bus under which the driver publishes."""
        return [f"devices/{topic}/all" for topic in self.options.driver.topics()]

    def await_reading(self) -> None:
        """Return when the observer has seen the first reading. Raises ``ProcessError``."""
        for _ in range(3 * self.options.driver.interval + 10):
            self.observer.collect(1.0)
            if self.observer.seen:
                return
        raise ProcessError(f"no reading reached the bus{self.servers.platform.driver.last_lines()}")

    def send_due_commands(self) -> None:
        """Send the commands that are due."""
        self._dispatcher.send_due()

    def collect(self, seconds: float) -> None:
        """Collect the bus messages of the next ``seconds``, then the new commands, results and progress."""
        self.observer.collect(seconds)
        self.exchange.follow()
        self.worker.follow()

    def finish(self, give_up: Callable[[], bool], planted: PlantedFaults) -> Outcome | None:
        """Wait until every command has ended, stop the driver, drain and stop the worker, and compare.

        Return ``None`` if ``give_up`` returns true meanwhile.
        """
        self._say("waiting until every command has ended")
        if not self._settle(give_up):
            self.worker.problems.append(f"{len(self.exchange.unended)} commands did not end")
        if planted.write:
            self._write_without_command()
        self.observer.close()
        self._say("stopping the driver; the worker delivers what it has received")
        self.servers.platform.stop_driver()
        drained = self.worker.drain(give_up)
        self._say("stopping the worker")
        self.worker.finish()
        if give_up():
            return None
        if not drained:
            self.worker.problems.append("the worker did not become idle: some messages are not delivered")
        if planted.loss:
            self._lose_message()
        return self._judge()

    def _settle(self, give_up: Callable[[], bool], timeout: float = 20.0) -> bool:
        """Wait until all commands have ended and all records for the bus were seen there.

        Must run before the driver is stopped. A report of the worker may have been under way when the last
        record was sent; therefore it waits for the second one from now.
        """
        end, report = time.monotonic() + timeout, self.worker.progress_count + 2
        while time.monotonic() < end and self.worker.running and not give_up():
            self.collect(0.1)
            if self.worker.progress_count < report or not self.worker.consumed_all(PLATFORM_SINKS):
                continue
            if not self.exchange.unended and not self._dispatcher.published - self.observer.from_worker:
                self.collect(0.1)
                return True
        return give_up()

    def _lose_message(self) -> None:
        self.store.delete(next(message for message in self.observer.seen if any(values_of(message))))

    def _write_without_command(self) -> None:
        device = self.options.driver.topics()[0]
        with self.servers.platform.connect("spare1") as bus:
            bus.call("platform.driver", "set_point", device, "ZoneTemperatureSetPoint", 71.0)

    def _judge(self) -> Outcome:
        second_source = self.worker.ledgers.get("command-to-cloud")
        problems = [*self.worker.problems, *comparison.check_second_source(second_source)]
        observed = self._observe()
        verdict = self.store.judge(observed).combine(Verdict({}, problems))
        return Outcome(verdict.combine(judge_commands(self._find_commands())), observed.expected)

    def _observe(self) -> Observed:
        ledgers = self.worker.ledgers
        return Observed(
            seen=self.observer.seen,
            received=count_spooled(ledgers["bus"]) if ledgers else 0,
            dropped=comparison.count_dropped(ledgers.values()),
            expected=comparison.expect_readings(
                self.readings_topics, self.options.driver.interval, self.observer.seconds
            ),
        )

    def _find_commands(self) -> CommandFindings:
        exchange = Exchange(self._topics)
        exchange.read_to_end()
        bus = self.worker.ledgers.get("bus")
        return CommandFindings(
            commands=exchange.commands,
            results=exchange.results,
            writes=self.servers.platform.writes(),
            history=self.store.count_command_history(),
            expected_states=self._dispatcher.expected_states,
            bus_records=BusRecords(
                published=self._dispatcher.published,
                heard=self.observer.from_worker,
                echoes=bus["counters"].get("filtered.echo", 0) if bus else 0,
            ),
        )


@contextmanager
def start_stage(options: StageOptions, say: Callable[[str], None]) -> Iterator[Stage]:
    """Start the servers, the worker and the observer, and stop all of them at the end.

    ``say`` is called before each step. If a start fails, the parts that run are stopped.
    """
    port = choose_port(options.page_port)
    options = options._replace(page_port=port)
    with ExitStack() as stack:
        servers = _start_servers(stack, options, say)
        bootstrap = servers.kafka.bootstrap if servers.kafka else ""
        mongo_uri = servers.mongo.uri if servers.mongo else ""
        endpoints = Endpoints(servers.platform, mongo_uri, bootstrap, port)
        lab_files = write_config(options.config, options.folder / "data", endpoints)
        create_topics(lab_files[0])
        say(f"starting the worker with the files in {options.config}")
        worker = LabWorker(
            [*lab_files, *options.connectors], options.folder / "worker.log", endpoints.connectors
        )
        stack.enter_context(worker)
        store = (
            MongoLabStore(mongo_uri)
            if mongo_uri
            else HistoryLabStore(options.folder / "data" / "history.db", "lab")
        )
        stack.callback(store.close)
        topics = stack.enter_context(WorkerCommandContext().topics(lab_files[0]))
        stage = Stage(options, servers, worker, topics, store, say)
        stack.enter_context(stage.observer)
        say("worker and observer are subscribed; waiting for the first reading")
        stage.await_reading()
        stack.callback(say, "stopping the servers")
        yield stage


def _start_servers(stack: ExitStack, options: StageOptions, say: Callable[[str], None]) -> Servers:
    kafka_server = None
    if options.with_kafka:
        libs = kafka.fetch_libs(say)
        kafka_server = kafka.KafkaServer(options.folder / "kafka", libs)
        say(f"starting Apache Kafka at {kafka_server.bootstrap}, from {libs.parent.name}")
        stack.enter_context(kafka_server)
    volttron.install("2", say)
    say(f"starting VOLTTRON with a driver of {options.driver.devices} devices")
    platform = VolttronPlatform(options.folder / "volttron", "2", options.driver, say)
    stack.enter_context(platform)
    mongo = None
    if options.store is StoreKind.MONGO:
        mongo = MongoServer(options.folder / "mongo")
        say(f"starting a MongoDB-wire server at {mongo.uri}")
        stack.enter_context(mongo)
    return Servers(platform, mongo, kafka_server)


def choose_port(wanted: int | None, preferred: int = PAGE_PORT) -> int:
    """Return the port of the pages. Raises ``ProcessError`` if the one that was asked for is in use."""
    if wanted is None:
        return preferred if can_listen(preferred) else free_port()
    if not can_listen(wanted):
        raise ProcessError(
            f"the pages cannot be served at port {wanted}: it is in use. Choose another --port"
        )
    return wanted
