"""The examples fit on one screen, and run: through the real runtime, on the local log."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from tieline.config.plan import check_plan
from tieline.plugins.discovery import SINKS, SOURCES
from tieline.runtime.worker.factory import open_broker
from tieline.runtime.worker.worker import Worker
from tieline.testing.distribution import distribution

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def installed(tmp_path):
    """Both examples as a distribution of their own; as modules they are gone afterwards."""
    names = ("smallest_source", "smallest_sink")
    with distribution(
        tmp_path,
        "fixture_examples",
        {SOURCES: {"counter": "smallest_source:Counter"}, SINKS: {"printer": "smallest_sink:Printer"}},
        {name: (EXAMPLES / f"{name}.py").read_text("utf-8") for name in names},
    ):
        yield


class Lines:
    """Standard output that can be waited for, line by line."""

    def __init__(self):
        self.lines = []
        self.text = ""
        self.changed = threading.Condition()

    def write(self, text):
        with self.changed:
            *whole, self.text = (self.text + text).split("\n")
            self.lines += whole
            self.changed.notify_all()

    def flush(self):
        """Nothing is buffered."""

    def wait_for(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.lines) >= count, timeout=20), self.lines


def run_until(lines, count, data_dir):
    """One worker with both examples, until so many lines are printed; its ledger at the end."""
    worker_settings = {
        "data.dir": str(data_dir),
        "value.converter": "avro",
        "offset.flush.interval.ms": "50",
    }
    planned = check_plan(
        "worker",
        worker_settings,
        [
            ("source", {"name": "count", "connector.class": "counter", "topic": "numbers"}),
            ("sink", {"name": "print", "connector.class": "printer", "topics": "numbers", "prefix": "n="}),
        ],
    )
    worker = Worker(planned, open_broker(planned))
    ended = []
    thread = threading.Thread(target=lambda: ended.append(worker.run()))
    thread.start()
    try:
        lines.wait_for(count)
    finally:
        worker.interrupt()
        thread.join(20)
    assert ended == [True]
    return worker.ledger()


def test_the_smallest_source_and_sink_resume_after_a_restart(installed, tmp_path, monkeypatch):
    lines = Lines()
    monkeypatch.setattr(sys, "stdout", lines)
    first = run_until(lines, 50, tmp_path / "data")
    printed = len(lines.lines)
    second = run_until(lines, printed + 50, tmp_path / "data")
    numbers = [int(line.removeprefix("n=")) for line in lines.lines]
    sent = first["count"]["delivered"] + second["count"]["delivered"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert 100 <= len(numbers) <= sent
    for ledger in (first, second):
        assert [ledger[name]["state"] for name in ("count", "print")] == ["STOPPED", "STOPPED"]
        assert ledger["count"]["received"] == ledger["count"]["delivered"]
        assert ledger["print"]["received"] == ledger["print"]["delivered"]
    assert first["print"]["delivered"] + second["print"]["delivered"] == len(numbers)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("smallest_*.py")), ids=lambda path: path.stem)
def test_an_example_fits_on_one_screen_and_has_a_docstring(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 40
    assert text.startswith('"""The smallest ')
    imported = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    froms = {line.split(" import ")[0] for line in imported}
    assert froms - {"from collections.abc"} == {"from tieline.api"}


def test_every_example_is_tested():
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == ["smallest_sink.py", "smallest_source.py"]
