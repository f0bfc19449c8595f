"""The durable totals of a spool and the age of its oldest record."""

import subprocess
import sys
import threading

import pytest

from tieline.api import SourceRecord
from tieline.broker.local.store import Store
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.clock import Counters
from tieline.runtime.task.totals import Ended, describe
from tieline.testing.clock import FakeClock

ROOMY = Limits(1 << 30, drop_oldest=True, quarantine_bytes=1 << 20)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.db"


def opened(path, limits=ROOMY, clock=None):
    return Spool(path, limits, Counters(), clock or FakeClock())


def records(count, timestamp=None):
    return [SourceRecord("t", f"{n}", timestamp=timestamp) for n in range(count)]


def numbers(spool):
    """Return received, delivered, dead-lettered, filtered, in flight and skipped."""
    shown = describe(spool.view.totals)
    keys = ("received", "delivered", "dead_lettered", "filtered", "in_flight", "skipped")
    assert shown["received"] == sum(shown[key] for key in keys[1:5])
    return tuple(shown[key] for key in keys)


def test_totals_continue_over_pumps_and_restarts(path):
    spool = opened(path)
    spool.append(records(10))
    assert numbers(spool) == (10, 0, 0, 0, 10, 0)
    spool.begin()
    spool.save({spool.id: "4"}, {spool.id: Ended(2, 1, 1)})
    assert numbers(spool) == (10, 2, 1, 1, 6, 0)
    spool.save({spool.id: "6"}, {spool.id: Ended(4, 1, 1)})
    assert numbers(spool) == (10, 4, 1, 1, 4, 0)
    spool.begin()  # for a pump that was built again
    spool.save({spool.id: "7"}, {spool.id: Ended(1)})
    spool.close()
    spool = opened(path)
    spool.append(records(5))
    spool.begin()
    spool.save({spool.id: "15"}, {spool.id: Ended(8)})
    assert numbers(spool) == (15, 13, 1, 1, 0, 0)
    spool.close()


def test_what_left_the_spool_unsent_is_skipped(path):
    spool = opened(path)
    spool.append(records(10))
    spool.begin()
    spool.save({spool.id: "10"}, {spool.id: Ended(7)})
    assert numbers(spool) == (7, 7, 0, 0, 0, 3)
    assert spool.view.totals.mismatch == 0
    spool.close()


def test_a_spool_of_an_older_version_begins_to_count_where_it_is(path):
    spool = opened(path)
    spool.append(records(10))
    spool.save({spool.id: "4"})
    spool.close()
    with Store(path) as store:
        store.save_source_offsets("totals", {"pump": None})
    spool = opened(path)
    spool.begin()
    spool.save({spool.id: "6"}, {spool.id: Ended(2)})
    assert numbers(spool) == (6, 2, 0, 0, 4, 0)
    spool.close()


@pytest.mark.parametrize("text", ["", "6", "six {}", "6 {", '6 {"tieline":2}', "-1 {}"])
def test_totals_that_cannot_be_read_begin_a_new_count(path, text):
    spool = opened(path)
    spool.append(records(6))
    spool.save({spool.id: "4"})
    spool.close()
    with Store(path) as store:
        store.save_source_offsets("totals", {"pump": text})
    spool = opened(path)
    assert numbers(spool) == (2, 0, 0, 0, 2, 0)
    spool.close()


def test_totals_that_count_more_than_has_left_the_spool_raise_an_alarm_with_the_size(path, caplog):
    spool = opened(path)
    spool.append(records(6))
    spool.begin()
    spool.save({spool.id: "4"}, {spool.id: Ended(7)})
    assert spool.view.totals.mismatch == 3
    (alarm,) = [line for line in caplog.records if getattr(line, "alarm", "") == "spool.mismatch"]
    assert "counts 3 records more" in alarm.getMessage()
    spool.close()


KILLED = """
import sys, pathlib
from tieline.api import SourceRecord
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.clock import Counters
from tieline.runtime.task.totals import Ended
spool = Spool(pathlib.Path(sys.argv[1]), Limits(1 << 30, True, 1 << 20), Counters())
spool.begin()
for number in range(1, 1_000_000):
    spool.append([SourceRecord("t", f"{n}") for n in range(10)])
    spool.save({spool.id: str(9 * number)}, {spool.id: Ended(7 * number, number, number)})
    print(number, flush=True)
"""


@pytest.mark.parametrize("kill_after", [1, 30])
def test_kill_9_never_separates_the_totals_from_the_position(path, kill_after):
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for _ in range(kill_after):
            process.stdout.readline()
        process.kill()
    spool = opened(path)
    received, delivered, dead, filtered, in_flight, skipped = numbers(spool)
    saved = spool.start // 9
    assert saved >= kill_after
    assert (delivered, dead, filtered, skipped) == (7 * saved, saved, saved, 0)
    assert received == 9 * saved + in_flight
    assert received in (10 * saved, 10 * saved + 10)  # one more batch may be safe
    spool.close()


def test_the_age_is_that_of_the_oldest_record_since_its_reception(path):
    clock = FakeClock()
    spool = opened(path, clock=clock)
    assert spool.view.age == 0.0
    spool.append(records(3, timestamp=1_000))  # a device whose clock is wrong
    clock.wait(threading.Event(), 50)
    spool.append(records(3, timestamp=1_000))
    clock.wait(threading.Event(), 20)
    assert spool.view.age == pytest.approx(70)
    spool.save({spool.id: "3"})
    assert spool.view.age == pytest.approx(20)
    spool.save({spool.id: "6"})
    assert spool.view.age == 0.0
    spool.close()


def test_the_age_of_a_record_of_an_earlier_process_is_that_of_its_timestamp(path):
    clock = FakeClock()
    spool = opened(path, clock=clock)
    spool.append(records(1, timestamp=clock.wall_ms() - 30_000))
    spool.close()
    spool = opened(path, clock=clock)
    assert spool.view.age == pytest.approx(30)
    spool.close()
