"""What one run of the lab consists of: started in this order, stopped in the reverse one."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from pymongo import DESCENDING, MongoClient
from typing_extensions import Self

from tieline.api.commands import TopicClient
from tieline.cli.command_context import WorkerCommandContext
from tieline_lab import comparison, kafka, volttron
from tieline_lab.commands_comparison import CommandFindings
from tieline_lab.comparison import Findings, Message
from tieline_lab.dispatcher import Dispatcher
from tieline_lab.driver import DriverSettings
from tieline_lab.exchange import Exchange
from tieline_lab.mongo import MongoServer
from tieline_lab.observer import Observer
from tieline_lab.process import ProcessError
from tieline_lab.volttron import VolttronPlatform
from tieline_lab.worker import COMMANDING, LabWorker, Surroundings, make_topics, spooled, write_files

_MARK = "made-by-tieline-lab"


def fresh_folder(folder: Path) -> Path:
    """An empty folder; what an earlier run left there is removed. Raises ``ProcessError`` before it removes
    anything that the lab has not made.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise ProcessError(f"{folder} holds something that is not the lab's; name another folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _MARK).touch()
    return folder


class Plants(NamedTuple):
    """What to make wrong at the end, to see that it is noticed."""

    loss: bool = False
    """Delete a stored document."""
    write: bool = False
    """Write a point, and not by a command."""


class Stage:
    """MongoDB-wire server, maybe Kafka, VOLTTRON with its driver, the worker, the observer; as a context.

    ``added``: files of connectors that the worker runs beside the lab's. ``say`` is told each step before it
    begins. Whatever goes wrong, also in the start, all of it is stopped.
    """

    def __init__(
        self,
        folder: Path,
        settings: DriverSettings,
        with_kafka: bool,
        added: Sequence[Path],
        say: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self._added = added
        self.settings = settings
        self.mongo = MongoServer(folder / "mongo")
        self.platform = VolttronPlatform(folder / "volttron", "2", settings, say)
        self.kafka = kafka.KafkaServer(folder / "kafka") if with_kafka else None
        self.config = folder / "config"
        self.worker: LabWorker
        self.observer: Observer
        self.topics: TopicClient
        self.exchange: Exchange
        self.dispatcher: Dispatcher
        self.client: MongoClient[dict[str, Any]]
        self._say = say
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._say("stopping the servers")
        self._running.close()

    @property
    def broker(self) -> str:
        """Between source and sinks."""
        return "local log" if self.kafka is None else "Apache Kafka"

    @property
    def readings_topics(self) -> list[str]:
        """The topics of the bus under which the driver publishes."""
        return [f"devices/{topic}/all" for topic in self.settings.topics()]

    def documents(self, collection: str) -> int:
        """How many there are."""
        return self.client["tieline"][collection].estimated_document_count()

    def last_reading(self, device: str) -> dict[str, Any] | None:
        """The newest document of a device in ``readings``, if there is one."""
        return self.client["tieline"]["readings"].find_one({"device": device}, sort=[("time", DESCENDING)])

    def send(self) -> None:
        """Let the dispatcher send what is due."""
        self.dispatcher.go_on()

    def collect(self, seconds: float) -> None:
        """Take notice, for so long, of what happens: on the bus, in the topics, in the worker."""
        self.observer.collect(seconds)
        self.exchange.follow()
        self.worker.follow()

    def finish(self, give_up: Callable[[], bool], plants: Plants) -> tuple[Findings, CommandFindings] | None:
        """Wait for the ends of all commands; stop the observer, the driver, and after it has drained the
        worker; what all sides then have.

        None if ``give_up`` became true meanwhile.
        """
        self._say("waiting until every command has come to its end")
        if not self._settle(give_up):
            self.worker.troubles.append(f"{len(self.exchange.unended)} commands did not come to their end")
        if plants.write:
            self._write_past_the_sink()
        self.observer.close()
        self._say("stopping the driver; the worker carries on what it has")
        self.platform.stop_driver()
        drained = self.worker.drain(give_up)
        self._say("stopping the worker")
        self.worker.finish()
        if give_up():
            return None
        if not drained:
            self.worker.troubles.append("the worker did not come to rest: something is still on its way")
        if plants.loss:
            self._lose_one()
        return self._findings(), self._command_findings()

    def _settle(self, give_up: Callable[[], bool], timeout: float = 20.0) -> bool:
        """Whether all commands have ended, and all that goes back to the bus was heard there.

        The devices must be alive for that. A ledger that was told before the last record was sent says
        nothing, hence two more.
        """
        end, told = time.monotonic() + timeout, self.worker.snapshots + 2
        while time.monotonic() < end and self.worker.running and not give_up():
            self.collect(0.1)
            if self.worker.snapshots < told or not self.worker.took_all(COMMANDING):
                continue
            if not self.exchange.unended and not self.dispatcher.published - self.observer.came_back:
                self.collect(0.1)
                return True
        return give_up()

    def _start(self, stack: ExitStack) -> None:
        if self.kafka is not None:
            libs = kafka.libs(self._say)
            self._say(f"starting Apache Kafka at {self.kafka.bootstrap}, from {libs.parent.name}")
            stack.enter_context(self.kafka)
        volttron.environment("2", self._say)
        self._say(f"starting VOLTTRON with a driver of {self.settings.devices} devices")
        stack.enter_context(self.platform)
        self._say(f"starting a MongoDB-wire server at {self.mongo.uri}")
        stack.enter_context(self.mongo)
        self.client = stack.enter_context(MongoClient(self.mongo.uri, serverSelectionTimeoutMS=5000))
        around = Surroundings(self.platform, self.mongo.uri, self.kafka.bootstrap if self.kafka else "")
        files = [*write_files(self.config, self.folder / "data", around), *self._added]
        self.worker = LabWorker(files, self.folder / "worker.log")
        make_topics(files[0])
        self._say(f"starting the worker with the files in {self.config}")
        stack.enter_context(self.worker)
        self.topics = stack.enter_context(WorkerCommandContext().topics(files[0]))
        self.exchange = Exchange(self.topics)
        self.dispatcher = Dispatcher(self.topics, self.settings.topics())
        self.observer = stack.enter_context(Observer(self.platform.connect("observer")))
        self._say("the worker is subscribed, the observer beside it too; waiting for the first reading")
        self._await_reading()

    def _await_reading(self) -> None:
        for _ in range(3 * self.settings.interval + 10):
            self.observer.collect(1.0)
            if self.observer.seen:
                return
        raise ProcessError(f"no reading reached the bus{self.platform.driver.last_lines()}")

    def _lose_one(self) -> None:
        seen = next(iter(self.observer.seen))
        self.client["tieline"]["cloudagent"].delete_one({"topic": seen.topic, "headers.TimeStamp": seen.time})

    def _write_past_the_sink(self) -> None:
        device = self.settings.topics()[0]
        with self.platform.connect("spare1") as bus:
            bus.call("platform.driver", "set_point", device, "ZoneTemperatureSetPoint", 71.0)

    def _command_findings(self) -> CommandFindings:
        exchange = Exchange(self.topics)
        exchange.read_to_the_end()
        bus = self.worker.ledgers.get("bus")
        return CommandFindings(
            commands=exchange.commands,
            results=exchange.results,
            writes=self.platform.writes(),
            history=self.client["tieline"]["commands"].count_documents({}),
            wanted=self.dispatcher.wanted,
            published=self.dispatcher.published,
            heard=self.observer.came_back,
            echoes=bus["counters"].get("filtered.echo", 0) if bus else 0,
        )

    def _findings(self) -> Findings:
        found = self.client["tieline"]["cloudagent"].find({}, {"topic": 1, "headers": 1, "message": 1})
        stored = Counter(Message.of(d["topic"], d["headers"], d["message"]) for d in found)
        ledgers = self.worker.ledgers
        return Findings(
            seen=self.observer.seen,
            stored=stored,
            readings=self.client["tieline"]["readings"].count_documents({}),
            received=spooled(ledgers["bus"]) if ledgers else 0,
            dropped=comparison.dropped(ledgers.values()),
            expected=comparison.expected(self.readings_topics, self.settings.interval, self.observer.seconds),
            troubles=(*self.worker.troubles, *comparison.second_source(ledgers.get("command-to-cloud"))),
        )
