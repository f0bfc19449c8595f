"""One worker with what the config store says: a real one, from file to file."""

import os
import signal
import threading

import pytest
from conftest import alive, until
from tieline_agent.run import THREADS
from tieline_agent.supervisor import Supervisor, Timing

TIMING = Timing(settle=0.05, backoff=0.2, longest=5.0)


class Store:
    """A config store, and a supervisor that is told of its entries."""

    def __init__(self, folder, tieline):
        self.folder = folder
        self.tieline = tieline
        self.entries = {}
        self.supervisor = None
        self.healths = []

    def start(self):
        self.supervisor = Supervisor(self.folder / "data", os.environ, THREADS, self._note, TIMING)
        self.thread = threading.Thread(target=self.supervisor.run)
        self.thread.start()
        self.supervisor.configure(self.entries)

    def stop(self):
        if self.supervisor is not None:
            self.supervisor.stop()
            self.thread.join(20)
            assert not self.thread.is_alive()
            self.supervisor = None

    def put(self, **entries):
        self.entries = {**self.entries, **{name.replace("_", "/"): value for name, value in entries.items()}}
        if self.supervisor is not None:
            self.supervisor.configure(self.entries)

    def copy(self, name="copy", **more):
        """Entries that copy the lines of ``in.txt`` to ``<name>.txt``."""
        source = {"connector.class": "file", "file": str(self.folder / "in.txt"), "topic": "lines"}
        sink = {"connector.class": "file", "file": str(self.folder / f"{name}.txt"), "topics": "lines"}
        worker = {"value.converter": "string", "progress.interval.ms": 200, **more}
        self.put(
            config={"tieline": self.tieline, "worker": worker}, connectors_in=source, connectors_out=sink
        )

    @property
    def pid(self):
        return self.supervisor.status()["worker"]["pid"]

    def _note(self):
        self.healths.append(self.supervisor.health())

    def is_good(self):
        return self.supervisor.health() == ("GOOD", {})


@pytest.fixture
def store(tmp_path, tieline):
    store = Store(tmp_path, tieline)
    (tmp_path / "in.txt").write_text("one\n")
    yield store
    store.stop()


def text(path):
    return path.read_text() if path.exists() else ""


def test_a_worker_runs_what_the_store_says_and_stops_cleanly(store, tmp_path):
    store.copy()
    store.start()
    until(lambda: text(tmp_path / "copy.txt") == "one\n")
    until(store.is_good)
    status = until(lambda: (s := store.supervisor.status())["connectors"]["out"].get("delivered") and s)
    assert (status["worker"]["state"], status["worker"]["restarts"]) == ("RUNNING", 0)
    assert status["connectors"]["in"]["state"] == "RUNNING"
    pid = status["worker"]["pid"]
    assert alive(pid)
    store.stop()
    assert not alive(pid)


def test_a_change_takes_effect_with_a_new_worker_and_nothing_is_lost(store, tmp_path):
    store.copy()
    store.start()
    until(lambda: text(tmp_path / "copy.txt") == "one\n")
    until(store.is_good)
    before = store.pid
    store.copy("other")
    until(lambda: store.pid not in (before, None))
    assert not alive(before)
    with (tmp_path / "in.txt").open("a") as file:
        file.write("two\n")
    until(lambda: text(tmp_path / "other.txt") == "two\n")
    assert text(tmp_path / "copy.txt") == "one\n"


def test_the_same_entries_again_leave_the_worker_alone(store):
    store.copy()
    store.start()
    until(store.is_good)
    before, seen = store.pid, len(store.healths)
    store.copy()
    until(lambda: len(store.healths) >= seen + 2)  # they came, and were looked at
    assert store.pid == before
    assert alive(before)


@pytest.mark.parametrize(
    ("problem", "cause"),
    [
        (
            {"connectors_out": {"connector.class": "file", "topics": "lines", "fiel": "s3cret"}},
            "connectors/out",
        ),
        ({"connectors_out": "s3cret"}, "connectors/out: is not a JSON object"),
        ({"config": {"tieline": "/nowhere"}}, "config: tieline must be the absolute path"),
        ({"config": {"tieline": "/opt\0/x"}}, "config: tieline must be the absolute path"),
        ({"config": {"environment": {"A=B": "s3cret"}}}, "config: environment: 'A=B' must be a name"),
        ({"config": {"environment": {"A": "s3cret\0"}}}, "config: environment: 'A' must be a name"),
    ],
)
def test_a_bad_change_keeps_the_worker_and_is_told_until_it_is_mended(store, tmp_path, problem, cause):
    store.copy()
    store.start()
    until(store.is_good)
    before = store.pid
    store.put(**problem)
    until(lambda: store.supervisor.health()[0] == "BAD")
    reasons = store.supervisor.health()[1]
    assert list(reasons) == ["configuration"]
    assert cause in reasons["configuration"]
    assert "s3cret" not in reasons["configuration"]
    assert str(tmp_path) not in reasons["configuration"]
    assert store.pid == before
    with (tmp_path / "in.txt").open("a") as file:
        file.write("two\n")
    until(lambda: text(tmp_path / "copy.txt") == "one\ntwo\n")
    store.copy()
    until(store.is_good)
    assert store.pid == before


def test_a_start_with_a_bad_configuration_uses_the_last_good_one(store, tmp_path):
    store.copy()
    store.start()
    until(store.is_good)
    store.stop()
    store.put(connectors_out="bad")
    store.start()
    until(lambda: store.supervisor.status()["connectors"].get("in"))
    assert store.supervisor.health()[0] == "BAD"
    with (tmp_path / "in.txt").open("a") as file:
        file.write("two\n")
    until(lambda: text(tmp_path / "copy.txt") == "one\ntwo\n")


def test_a_worker_that_dies_is_told_and_started_again_and_goes_on(store, tmp_path):
    store.copy()
    store.start()
    until(lambda: text(tmp_path / "copy.txt") == "one\n")
    until(store.is_good)
    before = store.pid
    os.kill(before, signal.SIGKILL)
    until(lambda: store.supervisor.health()[0] == "BAD")
    assert store.supervisor.health()[1]["worker"].startswith("the worker ended with status 137")
    until(lambda: store.pid not in (before, None))
    until(store.is_good)
    assert store.supervisor.status()["worker"]["restarts"] == 1
    with (tmp_path / "in.txt").open("a") as file:
        file.write("two\n")
    until(lambda: text(tmp_path / "copy.txt").endswith("two\n"))
    # At least once: what a killed worker had not committed comes again.
    assert set(text(tmp_path / "copy.txt").splitlines()) == {"one", "two"}


def test_a_worker_that_never_starts_stays_bad_with_its_last_lines(store, tmp_path):
    (tmp_path / "taken").write_text("")
    store.copy(**{"data.dir": str(tmp_path / "taken")})
    store.start()
    until(lambda: store.supervisor.status()["worker"]["restarts"] >= 2)
    status, causes = store.supervisor.health()
    assert status == "BAD"
    assert "ended with status" in causes["worker"]
    assert "taken" in causes["worker"]
    assert [status for status, _ in store.healths].count("GOOD") == 0


def test_a_connector_that_fails_is_told_with_its_cause(store, tmp_path):
    store.copy()
    store.put(connectors_json={"connector.class": "file", "topics": "lines", "value.converter": "json",
                               "file": str(tmp_path / "json.txt")})  # fmt: skip
    store.start()
    until(lambda: "connectors" in store.supervisor.health()[1])
    status, causes = store.supervisor.health()
    assert status == "BAD"
    assert list(causes["connectors"]) == ["json"]
    assert store.supervisor.status()["connectors"]["out"]["state"] == "RUNNING"


def test_an_empty_store_stops_the_worker_and_does_not_come_back_with_it(store):
    store.copy()
    store.start()
    until(store.is_good)
    before = store.pid
    store.entries = {}
    store.put()
    until(lambda: store.pid is None)
    assert not alive(before)
    assert store.supervisor.health() == (
        "BAD",
        {"configuration": "the config store has no entry 'config'; store one with the path of tieline"},
    )
    store.stop()
    store.put(config="bad")
    store.start()
    until(lambda: "JSON" in store.supervisor.health()[1].get("configuration", ""))
    assert store.pid is None


def test_a_stop_while_nothing_runs_ends(store):
    store.start()
    until(lambda: store.healths)
