"""The lab's worker: its files, its process, and what its log tells."""

from __future__ import annotations

import getpass
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
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

CONNECTORS = (
    "bus",
    "command-to-cloud",
    "readings",
    "cloudagent",
    "commands",
    "command-history",
    "way-back",
)
SOURCES = frozenset(CONNECTORS[:2])
SINKS = frozenset(CONNECTORS[2:])
OF_THE_BUS = frozenset(CONNECTORS[2:4])
"""The sinks of the topic that ``bus`` fills."""
COMMANDING = frozenset({"commands", "way-back"})
"""The sinks that do something at the platform."""
TOPICS = (COMMANDS, RESULTS, WAY_BACK)
"""Made before the worker starts, so that its sinks need not look for them."""
_RATES_OVER = 5.0

Ledgers = dict[str, dict[str, Any]]


class Surroundings(NamedTuple):
    """What the worker is put between. ``bootstrap``: Kafka; empty: the local log."""

    platform: VolttronPlatform
    mongo_uri: str
    bootstrap: str


def write_files(folder: Path, data: Path, around: Surroundings) -> list[Path]:
    """Write the worker's file and one a connector into ``folder``, in the order of the command line.

    The policy of commands stands beside them.
    """
    keys = around.platform.home / "credentials_store"
    broker = f"bootstrap.servers: {around.bootstrap}" if around.bootstrap else "# bootstrap.servers: …"
    values = {
        "data": data,
        "address": around.platform.address,
        "mongo_uri": around.mongo_uri,
        "cloud_prefix": f"devices/{around.platform.settings.topics()[0]}",
        "tieline_keys": keys / "tieline.json",
        "cloud_keys": keys / "tieline.cloud.json",
        "command_keys": keys / "tieline.command.json",
        "back_keys": keys / "tieline.way-back.json",
        "platform_keys": keys / "platform.json",
        "policy": folder / "policy.yaml",
        "audit": data / "audit.log",
        "kill_switch": data / "kill-switch",
        "person": _person(),
    }
    # A JSON string is a YAML string, whatever is in it.
    quoted = {name: json.dumps(str(value), ensure_ascii=False) for name, value in values.items()}
    folder.mkdir(parents=True, exist_ok=True)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = []
    for name in ("worker", *CONNECTORS, "policy"):
        text = Template((FILES / f"lab-{name}.yaml").read_text("utf-8"))
        file = folder / f"{name}.yaml"
        file.write_text(text.substitute(quoted, broker=broker, plain_uri=around.mongo_uri), "utf-8")
        files.append(file)
    return files[:-1]


def _person() -> str:
    """The issuer of what is sent from this keyboard, where it names no other."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"


def make_topics(worker_file: Path) -> None:
    """Make the topics of commands and of the way back, where a worker with this file will look for them."""
    broker = open_broker(check_plan(str(worker_file), read_settings(worker_file), []))
    try:
        for topic in TOPICS:
            broker.create_topic(topic)
    finally:
        broker.close()


class LabWorker(Process):
    """``tieline run`` with these files, ready when both sources are subscribed; follows its own log.

    Nothing is known anew until ``follow`` is called.
    """

    def __init__(self, files: list[Path], log: Path) -> None:
        command = [sys.executable, "-m", "tieline.cli.main", "run", *map(str, files)]
        super().__init__("tieline's worker", command, log, ready=self._subscribed)
        self.troubles: list[str] = []
        self.snapshots = 0
        """How often it has told its ledgers."""
        self._position = 0
        self._subscriptions: set[tuple[str, ...]] = set()
        self._history: deque[tuple[float, Ledgers]] = deque([(0.0, {})])

    @property
    def ledgers(self) -> Ledgers:
        """Each connector's ledger by its name, as last told; empty before the first."""
        return self._history[-1][1]

    def rate(self, value: Callable[[Mapping[str, Any]], int], connector: str) -> float:
        """How much a number of a connector's ledger grows a second, over the last five seconds."""
        told = [(when, ledgers[connector]) for when, ledgers in self._history if connector in ledgers]
        if len(told) < 2:
            return 0.0
        (first, before), (last, now) = told[0], told[-1]
        return (value(now) - value(before)) / max(last - first, 0.001)

    def follow(self) -> None:
        """Read what the worker has told since the last time."""
        with self.log.open("rb") as log:
            log.seek(self._position)
            for line in log:
                if not line.endswith(b"\n"):
                    break  # the rest of it is still to come
                self._position += len(line)
                self._take(line)

    @property
    def added(self) -> Ledgers:
        """The ledgers of connectors that are not the lab's."""
        return {name: ledger for name, ledger in self.ledgers.items() if name not in CONNECTORS}

    def took_all(self, sinks: Collection[str]) -> bool:
        """Whether these have taken all that is in their topics, as far as the last ledger tells."""
        ledgers = self.ledgers
        return all(name in ledgers and ledgers[name]["lag"] == 0 for name in sinks)

    def at_rest(self) -> bool:
        """Whether all that the lab's connectors received is delivered, as far as the last ledger tells."""
        ledgers = self._of_the_lab()
        if set(ledgers) != set(CONNECTORS):
            return False
        sources = [ledgers[name] for name in SOURCES]
        received = spooled(ledgers["bus"])
        return (
            all(ledger["in_flight"] == 0 for ledger in ledgers.values())
            and all(source["spool_records"] == 0 for source in sources)
            and all(source["delivered"] == spooled(source) for source in sources)
            and self.took_all(SINKS)
            and all(ledgers[name]["delivered"] == received for name in OF_THE_BUS)
        )

    def drain(self, give_up: Callable[[], bool], timeout: float = 30.0) -> bool:
        """Wait until twice in a row everything is at rest and nothing has moved; whether it came to that.

        Twice, since the ledgers of one line are not of one moment. ``give_up`` is asked meanwhile.
        """
        end = time.monotonic() + timeout
        told, before = self.snapshots, None
        while time.monotonic() < end and self.running and not give_up():
            self.follow()
            if self.snapshots > told:
                told = self.snapshots
                if self.at_rest() and self._of_the_lab() == before:
                    return True
                before = self._of_the_lab()
            time.sleep(0.05)
        return False

    def finish(self) -> None:
        """Stop it, and note what is not well with how it ended."""
        by_itself = not self.running
        self.stop()
        self.follow()
        if by_itself or self.status:
            self.troubles.append(
                f"the worker ended{' by itself' if by_itself else ''} with status {self.status}: {self.log}"
            )

    def _of_the_lab(self) -> Ledgers:
        return {name: ledger for name, ledger in self.ledgers.items() if name in CONNECTORS}

    def _subscribed(self) -> bool:
        self.follow()
        if self.troubles:
            raise ProcessError(f"{self.name} failed: {'; '.join(self.troubles)}\n  its log: {self.log}")
        return len(self._subscriptions) == len(SOURCES)

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return  # a line of Python's own, or of a library's
        if event.get("event") == "subscribed":
            self._subscriptions.add(tuple(event["prefixes"]))  # each source has its own
        if event.get("event") == "progress":
            self._remember(event["ledger"])

    def _remember(self, ledgers: Ledgers) -> None:
        now = time.monotonic()
        self.snapshots += 1
        self._history.append((now, ledgers))
        while now - self._history[0][0] > _RATES_OVER:
            self._history.popleft()
        for name, ledger in ledgers.items():
            trouble = f"{name} is {ledger['state']}: {ledger.get('trace', 'no reason was given')}"
            if ledger["state"] != "RUNNING" and trouble not in self.troubles:
                self.troubles.append(trouble)


def spooled(ledger: Mapping[str, Any]) -> int:
    """What a source has received and put on disk."""
    number: int = ledger["counters"].get("spooled", 0)
    return number
