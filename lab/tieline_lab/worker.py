"""The lab's worker: its configuration files, its process, and the progress that its log reports."""

from __future__ import annotations

import getpass
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from tieline.config.files import read_settings
from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline_lab.cache import FILES
from tieline_lab.dispatcher import COMMANDS, RESULTS, WAY_BACK
from tieline_lab.process import Process, ProcessError
from tieline_lab.volttron import VolttronPlatform

SOURCES = ("bus", "command-to-cloud")
PLATFORM_SINKS = ("commands", "way-back")
"""The sinks that write to the platform."""


class Connectors(NamedTuple):
    """The lab's connectors, by the store that their sinks fill."""

    reading_sinks: Sequence[str]
    """The sinks of the topic that ``bus`` fills."""
    other_sinks: Sequence[str]

    @property
    def sinks(self) -> Sequence[str]:
        """The names of all sinks."""
        return (*self.reading_sinks, *self.other_sinks)

    @property
    def names(self) -> Sequence[str]:
        """The names of all connectors."""
        return (*SOURCES, *self.sinks)


WITH_MONGO = Connectors(("readings", "cloudagent"), ("commands", "command-history", "way-back"))
WITH_HISTORY = Connectors(("history",), PLATFORM_SINKS)
CONNECTORS = WITH_MONGO.names
"""The connectors of the lab by default, and of the compose stack."""
TOPICS = (COMMANDS, RESULTS, WAY_BACK)
"""The topics that are created before the worker starts, so that its sinks find them at once."""
PAGE_PORT = 8083
"""The port of the pages if it is free; that of Kafka Connect."""
_RATE_SECONDS = 5.0

Ledgers = dict[str, dict[str, Any]]


class Endpoints(NamedTuple):
    """The servers that the worker connects, and the port of its pages.

    An empty ``mongo_uri`` means the sink ``history`` instead of MongoDB, an empty ``bootstrap`` the local log
    instead of Kafka.
    """

    platform: VolttronPlatform
    mongo_uri: str
    bootstrap: str
    page_port: int = PAGE_PORT

    @property
    def connectors(self) -> Connectors:
        """The connectors between these servers."""
        return WITH_MONGO if self.mongo_uri else WITH_HISTORY

    @property
    def listener(self) -> str:
        """The address of the pages."""
        return f"http://127.0.0.1:{self.page_port}"


def write_config(folder: Path, data: Path, endpoints: Endpoints) -> list[Path]:
    """Write the worker's file, a file per connector and the policy of commands into ``folder``.

    Return the files for the command line of ``tieline run``, in order; the policy is not one of them.
    """
    keys = endpoints.platform.home / "credentials_store"
    bootstrap = endpoints.bootstrap
    broker = f"bootstrap.servers: {bootstrap}" if bootstrap else "# bootstrap.servers: …"
    values = {
        "data": data,
        "address": endpoints.platform.address,
        "mongo_uri": endpoints.mongo_uri,
        "cloud_prefix": f"devices/{endpoints.platform.settings.topics()[0]}",
        "tieline_keys": keys / "tieline.json",
        "cloud_keys": keys / "tieline.cloud.json",
        "command_keys": keys / "tieline.command.json",
        "back_keys": keys / "tieline.way-back.json",
        "platform_keys": keys / "platform.json",
        "policy": folder / "policy.yaml",
        "audit": data / "audit.log",
        "kill_switch": data / "kill-switch",
        "person": _find_issuer(),
        "listener": endpoints.listener,
    }
    # A JSON string is also a YAML string, whatever characters it contains.
    quoted = {name: json.dumps(str(value), ensure_ascii=False) for name, value in values.items()}
    folder.mkdir(parents=True, exist_ok=True)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {}
    names = endpoints.connectors.names
    for name in ("worker", *names, "policy"):
        template = Template((FILES / f"lab-{name}.yaml").read_text("utf-8"))
        text = template.substitute(quoted, broker=broker, plain_uri=endpoints.mongo_uri)
        files[name] = folder / f"{name}.yaml"
        files[name].write_text(text, "utf-8")
    return [files[name] for name in ("worker", *names)]


def _find_issuer() -> str:
    """Return the issuer of commands that are sent from this terminal: the login name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"


def create_topics(worker_file: Path) -> None:
    """Create ``TOPICS`` on the broker that this worker file configures."""
    with closing(open_broker(check_plan(str(worker_file), read_settings(worker_file), []))) as broker:
        for topic in TOPICS:
            broker.create_topic(topic)


class LabWorker(Process):
    """``tieline run`` with these files, ready as soon as both sources are subscribed.

    ``follow`` reads its log; all other properties are as of the last ``follow``.
    """

    def __init__(self, files: list[Path], log: Path, connectors: Connectors = WITH_MONGO) -> None:
        command = [sys.executable, "-m", "tieline.cli.main", "run", *map(str, files)]
        super().__init__("tieline's worker", command, log, ready=self._subscribed)
        self.connectors = connectors
        self.problems: list[str] = []
        self.progress_count = 0
        """How often it has reported its ledgers."""
        self._position = 0
        self._subscriptions: set[tuple[str, ...]] = set()
        self._history: deque[tuple[float, Ledgers]] = deque([(0.0, {})])

    @property
    def ledgers(self) -> Ledgers:
        """The last reported ledger of each connector, by the connector's name; empty before the first."""
        return self._history[-1][1]

    @property
    def added(self) -> Ledgers:
        """The ledgers of connectors that are not the lab's."""
        return {name: ledger for name, ledger in self.ledgers.items() if name not in self.connectors.names}

    def rate(self, value: Callable[[Mapping[str, Any]], int], connector: str) -> float:
        """Return by how much a value of a connector's ledger grew per second in the last five seconds."""
        history = [(moment, ledgers[connector]) for moment, ledgers in self._history if connector in ledgers]
        if len(history) < 2:
            return 0.0
        (begin, first), (end, last) = history[0], history[-1]
        return (value(last) - value(first)) / max(end - begin, 0.001)

    def follow(self) -> None:
        """Read the lines that the worker has logged since the last time."""
        with self.log.open("rb") as log:
            log.seek(self._position)
            for line in log:
                if not line.endswith(b"\n"):
                    break  # the worker has not written the rest of it yet
                self._position += len(line)
                self._read_line(line)

    def consumed_all(self, sinks: Collection[str]) -> bool:
        """Return whether these sinks have consumed their topics to the end."""
        ledgers = self.ledgers
        return all(name in ledgers and ledgers[name]["lag"] == 0 for name in sinks)

    def is_idle(self) -> bool:
        """Return whether everything that the lab's connectors received is delivered."""
        ledgers = self._lab_ledgers()
        if set(ledgers) != set(self.connectors.names):
            return False
        sources = [ledgers[name] for name in SOURCES]
        received = count_spooled(ledgers["bus"])
        return (
            all(ledger["in_flight"] == 0 for ledger in ledgers.values())
            and all(source["spool_records"] == 0 for source in sources)
            and all(source["delivered"] == count_spooled(source) for source in sources)
            and self.consumed_all(self.connectors.sinks)
            and all(ledgers[name]["delivered"] == received for name in self.connectors.reading_sinks)
        )

    def drain(self, give_up: Callable[[], bool], timeout: float = 30.0) -> bool:
        """Wait until two consecutive reports show it idle with the same ledgers; return whether they did.

        It takes two, since the ledgers of one report are not from one moment. The wait also ends if
        ``give_up`` returns true.
        """
        end = time.monotonic() + timeout
        count, previous = self.progress_count, None
        while time.monotonic() < end and self.running and not give_up():
            self.follow()
            if self.progress_count > count:
                count = self.progress_count
                if self.is_idle() and self._lab_ledgers() == previous:
                    return True
                previous = self._lab_ledgers()
            time.sleep(0.05)
        return False

    def finish(self) -> None:
        """Stop it. An end by itself or with an error is added to ``problems``."""
        ended_by_itself = not self.running
        self.stop()
        self.follow()
        if ended_by_itself or self.status:
            cause = " by itself" if ended_by_itself else ""
            self.problems.append(f"the worker ended{cause} with status {self.status}: see {self.log}")

    def _lab_ledgers(self) -> Ledgers:
        return {name: ledger for name, ledger in self.ledgers.items() if name in self.connectors.names}

    def _subscribed(self) -> bool:
        self.follow()
        if self.problems:
            raise ProcessError(f"{self.name} failed: {'; '.join(self.problems)}\n  its log: {self.log}")
        return len(self._subscriptions) == len(SOURCES)

    def _read_line(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return  # a line of Python itself, or of a library
        if event.get("event") == "subscribed":
            self._subscriptions.add(tuple(event["prefixes"]))  # each source has other prefixes
        if event.get("event") == "progress":
            self._add_ledgers(event["ledger"])

    def _add_ledgers(self, ledgers: Ledgers) -> None:
        now = time.monotonic()
        self.progress_count += 1
        self._history.append((now, ledgers))
        while now - self._history[0][0] > _RATE_SECONDS:
            self._history.popleft()
        for name, ledger in ledgers.items():
            problem = f"{name} is {ledger['state']}: {ledger.get('trace', 'no reason was given')}"
            if ledger["state"] != "RUNNING" and problem not in self.problems:
                self.problems.append(problem)


def count_spooled(ledger: Mapping[str, Any]) -> int:
    """Return how many messages a source has received and stored in its spool."""
    number: int = ledger["counters"].get("spooled", 0)
    return number
