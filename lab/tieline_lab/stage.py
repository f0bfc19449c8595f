"""What one run of the lab consists of: started in this order, stopped in the reverse one."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pymongo import DESCENDING, MongoClient
from typing_extensions import Self

from tieline_lab import comparison, kafka, volttron
from tieline_lab.comparison import Findings, Message
from tieline_lab.driver import DriverSettings
from tieline_lab.mongo import MongoServer
from tieline_lab.observer import Observer
from tieline_lab.process import ProcessError
from tieline_lab.volttron import VolttronPlatform
from tieline_lab.worker import LabWorker, Surroundings, spooled, write_files

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


class Stage:
    """MongoDB-wire server, maybe Kafka, VOLTTRON with its driver, the worker, the observer; as a context.

    ``say`` is told each step before it begins. Whatever goes wrong, also in the start, all of it is stopped.
    """

    def __init__(
        self, folder: Path, settings: DriverSettings, with_kafka: bool, say: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.mongo = MongoServer(folder / "mongo")
        self.platform = VolttronPlatform(folder / "volttron", "2", settings, say)
        self.kafka = kafka.KafkaServer(folder / "kafka") if with_kafka else None
        self.config = folder / "config"
        self.worker: LabWorker
        self.observer: Observer
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

    def finish(self, give_up: Callable[[], bool], plant_loss: bool = False) -> Findings | None:
        """Stop the observer, the driver, and after it has drained the worker; what both sides then have.

        None if ``give_up`` became true while the worker drained. ``plant_loss``: delete one document first.
        """
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
        if plant_loss:
            self._lose_one()
        return self._findings()

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
        files = write_files(self.config, self.folder / "data", around)
        self.worker = LabWorker(files, self.folder / "worker.log")
        self._say(f"starting the worker with the files in {self.config}")
        stack.enter_context(self.worker)
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
