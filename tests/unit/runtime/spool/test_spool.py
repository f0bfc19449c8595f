"""The spool: durable before anything else, bounded, never raising to the receiver."""

import json
import threading

import pytest

from tieline.api import DataDirInUseError, Datum, Schema, SourceRecord, header
from tieline.broker.local.store import Store
from tieline.broker.records import ProducerRecord
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.converters.codec import AvroBytes
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.clock import Counters
from tieline.testing.clock import FakeClock

SCHEMA = Schema.parse(
    json.dumps({"type": "record", "name": "t.R", "fields": [{"name": "n", "type": "long"}]})
)
ROOMY = Limits(1 << 30, drop_oldest=True, quarantine_bytes=1 << 20)


class FixedSchemas:
    """Every schema has the id 7."""

    def register(self, subject, schema):
        return 7

    def schema(self, schema_id):
        return SCHEMA


class Opened:
    """Opens a spool, and holds its counters, its clock and the store of the last one."""

    def __init__(self, path):
        self.path = path
        self.counters, self.clock = Counters(), FakeClock()
        self.spools = []
        self.store: Store

    def __call__(self, limits=ROOMY, **options):
        self.spools.append(Spool(self.path, limits, self.counters, self.clock, **options))
        return self.spools[-1]

    def keep_store(self, *arguments, **options):
        self.store = Store(*arguments, **options)
        return self.store

    def write_quarantine(self, spool):
        self.clock.wait(threading.Event(), 1)
        spool.write_quarantine()


@pytest.fixture
def opened(tmp_path, monkeypatch):
    opened = Opened(tmp_path / "s.db")
    monkeypatch.setattr("tieline.runtime.spool.spool.Store", opened.keep_store)
    yield opened
    for spool in opened.spools:
        spool.close()


def records(count, start=0, size=0):
    return [SourceRecord("t", f"{n}{'x' * size}") for n in range(start, start + count)]


def drained(spool, position=None):
    position = spool.start if position is None else position
    out: list[SourceRecord] = []
    while True:
        batch, position, *_ = spool.read(position, 7, 0)
        if not batch:
            return out, position
        out += batch


def test_appended_records_are_read_in_order_and_removed_once_they_are_saved(opened):
    spool = opened()
    spool.append(records(20))
    batch, position = drained(spool)
    assert [r.value for r in batch] == [str(n) for n in range(20)]
    assert spool.waiting[0] == 20
    spool.save({spool.id: str(position)})
    assert spool.waiting == (0, 0)
    spool.append(records(1, 20))
    assert [r.value for r in drained(spool)[0]] == ["20"]


def test_values_that_no_transform_reads_leave_the_spool_as_the_converters_bytes(
    opened,
):
    converter = AvroConverter(AvroConverterConfig(), is_key=False, schemas=FixedSchemas())
    records = [SourceRecord("t", {"n": n}, str(n), value_schema=SCHEMA) for n in range(5)]
    records.append(SourceRecord("t", "no schema", None))
    spool = opened(as_avro=True)
    spool.append(records)
    read, _ = drained(spool)
    assert [(r.key, r.value_schema) for r in read] == [(r.key, r.value_schema) for r in records]
    assert all(type(r.value) is AvroBytes for r in read[:-1])
    assert converter.serialize([Datum("t", r.value, r.value_schema) for r in read]) == converter.serialize(
        [Datum("t", r.value, r.value_schema) for r in records]
    )


def test_after_a_reopen_unsaved_records_are_read_again_with_the_same_identities(opened):
    spool = opened()
    spool.append(records(3))
    first, _ = drained(spool)
    spool.save({spool.id: str(spool.start + 1)})
    spool.close()
    spool = opened()
    again, _ = drained(spool)
    assert again == first[1:]


def test_two_equal_records_without_an_identity_get_different_ones(opened):
    spool = opened()
    spool.append([SourceRecord("t", "same"), SourceRecord("t", "same")])
    first, second = drained(spool)[0]
    assert header(first, "tieline.id") != header(second, "tieline.id")
    assert header(first, "tieline.id") is not None


def test_an_identity_from_the_source_is_kept(opened):
    spool = opened()
    spool.append([SourceRecord("t", "v", headers=(("tieline.id", b"mine"), ("other", None)))])
    assert drained(spool)[0][0].headers == (("tieline.id", b"mine"), ("other", None))


def test_schemas_survive_a_reopen(opened):
    spool = opened()
    spool.append([SourceRecord("t", {"n": 5}, key="k", value_schema=SCHEMA, timestamp=7, partition=3)])
    spool.close()
    (record,) = drained(opened())[0]
    assert (record.value, record.value_schema, record.key, record.timestamp, record.partition) == (
        {"n": 5}, SCHEMA, "k", 7, 3,
    )  # fmt: skip


def test_a_full_spool_drops_the_oldest_and_counts_them_exactly(opened):
    spool = opened(Limits(100_000, drop_oldest=True, quarantine_bytes=1000))
    for start in range(0, 1000, 10):
        spool.append(records(10, start, size=500))
    remaining, _ = drained(spool)
    dropped = opened.counters["dropped.spool_full"]
    assert dropped > 0
    assert len(remaining) + dropped == 1000
    assert remaining[-1].value.startswith("999x")
    assert spool.waiting[1] <= 100_000 + 10 * 700


def test_a_full_spool_may_drop_the_newest_instead(opened):
    spool = opened(Limits(100_000, drop_oldest=False, quarantine_bytes=1000))
    for start in range(0, 1000, 10):
        spool.append(records(10, start, size=500))
    remaining, _ = drained(spool)
    assert len(remaining) + opened.counters["dropped.spool_full"] == 1000
    assert remaining[0].value.startswith("0x")
    assert spool.waiting[1] <= 100_000


def test_records_dropped_while_the_pump_has_them_are_not_counted_as_lost(opened):
    spool = opened(Limits(100_000, drop_oldest=True, quarantine_bytes=1000))
    spool.append(records(100, size=500))
    in_hand, position = drained(spool)
    for start in range(100, 1000, 100):
        spool.append(records(100, start, size=500))
    rest, _ = drained(spool, position)
    assert len(in_hand) + len(rest) + opened.counters["dropped.spool_full"] == 1000


def test_a_record_that_cannot_be_encoded_is_quarantined_and_its_neighbours_are_spooled(opened):
    spool = opened()
    spool.append([*records(1), SourceRecord("t", {"n": "text"}, value_schema=SCHEMA), *records(1, 1)])
    assert [r.value for r in drained(spool)[0]] == ["0", "1"]
    assert opened.counters["quarantined.not_encodable"] == 1


def test_the_quarantine_is_bounded_and_keeps_the_newest(opened):
    spool = opened(Limits(1 << 20, drop_oldest=True, quarantine_bytes=10_000))
    for number in range(100):
        spool.quarantine(b"%03d" % number + b"z" * 500, "malformed")
    opened.write_quarantine(spool)
    kept = opened.store.read_from("quarantine", 0, 0)
    assert kept[-1].value.startswith(b"099")
    assert len(kept) + opened.counters["dropped.quarantine_full"] == 100
    assert sum(len(r.value) for r in kept) <= 10_000
    spool.quarantine(b"x" * 20_000, "huge")
    assert opened.counters["dropped.quarantine_full"] + len(kept) == 101


def test_a_flood_of_bad_input_is_written_in_batches_bounded_and_counted(opened):
    """300 bad messages a second for a minute, each beside a good one."""
    clock = opened.clock
    spool = opened()
    before = opened.store.version
    for number in range(18_000):
        spool.quarantine(b"bad", "malformed")
        if number % 300 == 0:
            spool.append(records(1, number))
        clock.wait(threading.Event(), 1 / 300)
    opened.write_quarantine(spool)
    assert opened.store.version - before <= 60 + 2 * 60 + 1
    kept, _ = opened.store.size("quarantine")
    assert kept == pytest.approx(1_000 + 60 * 50, abs=50)
    assert kept + opened.counters["dropped.quarantine_rate"] == 18_000
    assert len(drained(spool)[0]) == 60


def test_occasional_bad_input_is_on_the_disk_at_once(opened):
    clock = opened.clock
    spool = opened()
    for number in range(1, 6):
        spool.quarantine(b"bad", "malformed")
        assert opened.store.size("quarantine")[0] == number
        clock.wait(threading.Event(), 1)


def test_a_disk_that_cannot_be_written_drops_and_counts_and_does_not_raise(opened):
    spool = opened()
    opened.store.close()
    spool.append(records(5))
    spool.quarantine(b"x", "malformed")
    assert opened.counters["dropped.spool_unavailable"] == 5
    assert opened.counters["dropped.quarantine_unavailable"] == 1


def test_a_spool_has_one_owner(opened):
    opened()
    with pytest.raises(DataDirInUseError):
        opened()


@pytest.mark.parametrize(
    "bad",
    [
        SourceRecord("t", 10**5000),
        SourceRecord("t", object()),
        SourceRecord(b"no text", "v"),  # type: ignore[arg-type]
        SourceRecord("t", "v", timestamp=1.5),  # type: ignore[arg-type]
        SourceRecord("t", "v", timestamp=2**70),
        SourceRecord("t", "v", headers=((None, b"x"),)),  # type: ignore[arg-type]
        SourceRecord("t", "v", headers=(("name", "no bytes"),)),  # type: ignore[arg-type]
        SourceRecord("t", "v", headers=(("\ud800", b"x"),)),
    ],
    ids=["digits", "object", "topic", "float time", "far time", "no header name", "text header", "surrogate"],
)
def test_an_invalid_record_does_not_affect_the_others(opened, bad):
    spool = opened()
    spool.append([*records(1), bad, *records(1, 1)])
    assert [r.value for r in drained(spool)[0]] == ["0", "1"]
    counts = opened.counters.all()
    assert counts["spooled"] == 2
    assert counts.get("quarantined.not_encodable", 0) + counts.get("dropped.not_spoolable", 0) == 1


def test_small_things_followed_by_large_ones_do_not_grow_the_quarantine_beyond_its_bound(opened):
    spool = opened(Limits(1 << 20, drop_oldest=True, quarantine_bytes=10_000))
    for _ in range(200):
        spool.quarantine(b"s", "tiny")
    for _ in range(5):
        spool.quarantine(b"z" * 9_000, "large")
    opened.write_quarantine(spool)
    assert opened.store.size("quarantine")[1] <= 10_000


def test_records_dropped_while_the_pump_has_them_are_lost_unless_it_delivers_them(opened):
    spool = opened(Limits(100_000, drop_oldest=True, quarantine_bytes=1000))
    spool.append(records(100, size=500))
    spool.read(spool.start, 80, 0)
    for start in range(100, 400, 100):
        spool.append(records(100, start, size=500))
    before = opened.counters["dropped.spool_full"]
    spool.save({spool.id: "30"})
    spool.release()
    assert opened.counters["dropped.spool_full"] == before + 50
    remaining, _ = drained(spool)
    assert len(remaining) + 30 + opened.counters["dropped.spool_full"] == 400


def test_a_schema_that_was_stored_although_it_seemed_not_shifts_no_number(opened):
    """The append timed out and happened all the same: the file has a schema that the spool does not know."""
    other = Schema.parse('{"type":"record","name":"t.Other","fields":[{"name":"s","type":"string"}]}')
    spool = opened()
    opened.store.append([ProducerRecord("schemas", other.text.encode(), partition=0)])
    spool.append([SourceRecord("t", {"n": 5}, value_schema=SCHEMA)])
    spool.close()
    assert [r.value for r in drained(opened())[0]] == [{"n": 5}]


@pytest.mark.parametrize("drop_oldest", [True, False])
def test_a_batch_larger_than_the_whole_spool_is_cut_to_what_fits(opened, drop_oldest):
    spool = opened(Limits(100_000, drop_oldest=drop_oldest, quarantine_bytes=1000))
    spool.append(records(3, size=10))
    spool.append(records(1000, 3, size=500))
    remaining, _ = drained(spool)
    assert spool.waiting[1] <= 100_000
    assert len(remaining) + opened.counters["dropped.spool_full"] == 1003
    assert remaining[-1].value.startswith("1002x") == drop_oldest
