"""What a batch of records comes to: where each belongs, and how many writes of the ledger it costs."""

import json
import time
from typing import Any

import pytest

from tieline.api import (
    ID_HEADER,
    FatalError,
    FencedError,
    RetriableError,
    SinkRecord,
    TopicPartition,
    Unreadable,
    partition_of,
)
from tieline.testing.changelogs import Changelogs
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.command.cli import parsing
from tieline_connectors.command.cli.client import DraftDefaults, prepare
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.model.command import Defaults
from tieline_connectors.command.model.parsing import from_value
from tieline_connectors.command.model.partition_note import KEY as KEY_OF_NOTE
from tieline_connectors.command.sink import CommandSinkTask

POINT = "campus/b1/ahu1/CoolingSetpoint"
DEVICE = "campus/b1/ahu1"
KEY = b"0123456789abcdef"
RULE = {"issuers": "boss", "points": "campus/**", "type": "float", "min": 0, "max": 100}
EACH = range(3)


class Stand:
    """A task whose platform is unavailable, so that accepted commands wait."""

    def __init__(self, folder):
        self.folder, self.changelogs = folder, Changelogs()
        self.offsets: dict[int, int] = {}
        self.task: Any = None

    def start(self, rule=None, partitions=1, connector="test", **changes):
        self.stop()
        (self.folder / "policy.json").write_text(json.dumps({"version": 1, "rules": [rule or RULE]}))
        settings = {
            "volttron.address": "tcp://127.0.0.1:1",
            "platform.name": "campus",
            "policy.file": str(self.folder / "policy.json"),
            "audit.file": str(self.folder / "audit.log"),
            "signature.keys": "ops:MDEyMzQ1Njc4OWFiY2RlZg==",
            **{name.replace("_", "."): value for name, value in changes.items()},
        }
        self.context = RecordingSinkContext(connector, changelogs=self.changelogs)
        self.context.partition_counts["commands"] = partitions
        self.task = CommandSinkTask(self.context, CommandSinkConfig.parse(settings))
        self.task.start()
        self.task.open([TopicPartition("commands", number) for number in range(partitions)])
        self.writes_of_takeover = self.changelogs.writes

    def stop(self):
        if self.task is not None:
            self.context.stopping = True
            self.task.interrupt()
            self.task.stop()

    def put(self, *values, partition=0, topic="commands"):
        records = []
        for value in values:
            offset = self.offsets.get(partition, 0)
            self.offsets[partition] = offset + 1
            headers = ((ID_HEADER, b"t-%d-%d" % (partition, offset)),)
            records.append(
                SinkRecord(topic, partition, offset, value, None, headers, time.time_ns() // 1_000_000)
            )
        self.task.put(records)

    def reported(self, command_id=None):
        results = [r.value for r in self.changelogs.records if r.topic == "command-results"]
        return [(r["state"], r["reason_code"]) for r in results if command_id in (None, r["command_id"])]

    def writes(self):
        """How many writes of the changelogs took effect since the partitions were taken over."""
        return self.changelogs.writes - self.writes_of_takeover

    def reasons(self):
        return [r.value["reason"] for r in self.changelogs.records]


@pytest.fixture
def stand(tmp_path):
    stand = Stand(tmp_path)
    yield stand
    stand.stop()


def new_command(name="c", device=DEVICE, **fields):
    now = time.time_ns() // 1000
    writes = [{"point": f"{device}/CoolingSetpoint", "value": 21.0}]
    return {
        "command_id": name,
        "issuer": "boss",
        "issued_at": now,
        "expires_at": now + 60_000_000,
        "action": "SET",
        "writes": writes,
        **fields,
    }


def test_a_command_copied_to_every_partition_is_accepted_once_where_its_device_belongs(stand):
    stand.start(partitions=3)
    right = partition_of(DEVICE.encode(), 3)
    command = new_command()
    for partition in EACH:
        stand.put(command, partition=partition)
    expected = [("ACCEPTED", "") if n == right else ("REJECTED", "WRONG_PLACE") for n in EACH]
    assert stand.reported() == expected
    reported = next(reason for reason in stand.reasons() if reason)
    assert f"belongs to partition {right} of commands" in reported
    assert "murmur2_random" in reported
    assert stand.context.counters["accepted"] == 1


@pytest.mark.parametrize("device", [f"campus/b{n}/é{n}" for n in range(20)])
def test_the_partition_of_a_command_is_the_one_that_our_sender_chooses(stand, device):
    record = parsing.to_record(new_command(device=device), "commands", "json")
    partition = partition_of(record.key.encode(), 3)
    stand.start(partitions=3)
    stand.put(new_command(device=device), partition=partition)
    assert stand.reported() == [("ACCEPTED", "")]


def test_a_command_whose_devices_belong_to_several_partitions_is_not_executed(stand):
    stand.start(partitions=3)
    assert partition_of(b"campus/b1/ahu1", 3) != partition_of(b"campus/b9/other", 3)
    writes = [{"point": "campus/b1/ahu1/P", "value": 1.0}, {"point": "campus/b9/other/P", "value": 1.0}]
    for partition in EACH:
        stand.put(new_command(writes=writes), partition=partition)
    assert stand.reported() == [("REJECTED", "WRONG_PLACE")] * 3
    assert "send a command for each" in stand.reasons()[0]


def test_a_command_of_several_devices_that_belong_together_is_executed_where_they_do(stand):
    stand.start(partitions=3)
    right = partition_of(DEVICE.encode(), 3)
    beside = next(d for n in range(50) if partition_of((d := f"campus/b{n}").encode(), 3) == right)
    writes = [{"point": f"{DEVICE}/P", "value": 1.0}, {"point": f"{beside}/P", "value": 1.0}]
    for partition in EACH:
        stand.put(new_command(writes=writes), partition=partition)
    assert stand.reported().count(("ACCEPTED", "")) == 1
    assert stand.reported()[right] == ("ACCEPTED", "")


@pytest.mark.parametrize("device", [f"campus/b1/ahu{n}" for n in range(8)])
def test_both_texts_of_a_register_of_2_x_have_one_place(stand, device):
    texts = (f"{device}/Zone/Temp", f"{device}/Zone{{/}}Temp")
    records = [
        parsing.to_record(new_command(writes=[{"point": point, "value": 1.0}]), "commands", "json")
        for point in texts
    ]
    assert records[0].key == records[1].key
    stand.start(partitions=3)
    for number, record in enumerate(records):
        partition = partition_of(record.key.encode(), 3)
        stand.put({**record.value, "command_id": f"c{number}"}, partition=partition)
    assert stand.reported() == [("ACCEPTED", "")] * 2


@pytest.mark.parametrize("readable", [True, False])
@pytest.mark.parametrize("setting", ["results_topic", "results_old_topic"])
def test_a_sink_that_reads_its_own_results_answers_none_of_them(stand, setting, readable, caplog):
    stand.start(**{setting: "commands"})
    stand.put(new_command(), "no command")
    answers = [record.value for record in stand.changelogs.records]
    reported = len(answers)
    assert reported in (2, 3)  # the old form reports only ends, and an invalid command names no point
    old = {"from": "CloudAgent", "to": "Cloud", "message": "SUCCEEDED", "device_point": POINT, "new_value": 1}
    values = [old, *answers] if readable else [Unreadable(b"{", ValueError("no JSON"))] * 3
    stand.put(*values)
    assert len(stand.changelogs.records) == reported
    assert stand.context.counters["results.read"] == len(values)
    assert "Give results.topic another topic" in caplog.text
    stand.put(new_command("d"))
    assert stand.changelogs.records[-1].value["command_id"] == "d"


def test_one_partition_or_the_old_form_never_mean_a_wrong_partition(stand):
    stand.start(partitions=1)
    stand.put(new_command())
    assert stand.reported() == [("ACCEPTED", "")]
    stand.changelogs = Changelogs()
    stand.start(partitions=3, old_issuer="boss")
    for partition in EACH:
        stand.put({"message": "m", "new_value": "22.5", "device_point": POINT}, partition=partition)
    assert stand.reported() == [("ACCEPTED", "")] * 3


@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 3), (2, 6)])
def test_a_copy_is_not_taken_for_new_where_the_topic_got_more_partitions(stand, before, after):
    devices = [f"campus/b1/ahu{number}" for number in range(20)]
    values = {device: new_command(device, device) for device in devices}
    stand.start(partitions=before)
    for device in devices:
        stand.put(values[device], partition=partition_of(device.encode(), before))
    accepted = stand.reported().count(("ACCEPTED", ""))
    stand.start(partitions=after)
    for device in devices:
        for partition in range(after):
            stand.put(values[device], partition=partition)
    assert accepted == len(devices)
    assert stand.reported().count(("ACCEPTED", "")) == accepted
    stand.start(partitions=after, max_clock_skew_ms="0")
    new = new_command("new", "campus/b1/ahu1")
    stand.put(new, partition=partition_of(b"campus/b1/ahu1", after))
    assert stand.reported("new") in ([("ACCEPTED", "")], [("REJECTED", "FORGOTTEN")])


def test_what_a_version_without_places_may_have_executed_on_another_partition_is_not_executed(stand):
    right = partition_of(DEVICE.encode(), 3)
    stand.changelogs.claim("test", "commands", "campus", -1)
    for _ in range(2):
        stand.start(partitions=3)
        stand.put(new_command(), partition=right)
    assert stand.reported() == [("REJECTED", "FORGOTTEN")] * 2


def test_another_connector_on_the_topic_is_rejected_with_the_steps_to_take_the_ledger_over(stand):
    stand.start()
    command = new_command()
    stand.put(command)
    with pytest.raises(FatalError, match=r"ledger\.name"):
        stand.start(connector="renamed")
    stand.start(connector="renamed", ledger_name="test")
    stand.put(command)
    stand.start(connector="beside it", platform_name="annex")
    assert stand.reported() == [("ACCEPTED", "")]


def signed_for(topic="commands", platform="campus", key=KEY, **fields):
    plain = new_command(topic=topic, platform=platform, **fields)
    return parsing.add_signature(plain, key)


SIGNED = {**RULE, "key": "ops"}


@pytest.mark.parametrize(
    ("topic", "platform", "expected"),
    [
        ("commands", "campus", ("ACCEPTED", "")),
        ("commands", None, ("ACCEPTED", "")),
        (None, "campus", ("ACCEPTED", "")),
        ("others", "campus", ("REJECTED", "WRONG_PLACE")),
        ("commands", "annex", ("REJECTED", "WRONG_PLACE")),
    ],
)
def test_a_signed_command_is_executed_on_the_topic_and_at_the_platform_that_it_names(
    stand, topic, platform, expected
):
    stand.start(rule=SIGNED)
    stand.put(signed_for(topic, platform))
    assert stand.reported() == [expected]


@pytest.mark.parametrize("change", [{"topic": None}, {"platform": None}, {"topic": None, "platform": None}])
def test_a_signature_is_invalid_without_the_topic_and_platform_that_it_names(stand, change):
    stand.start(rule=SIGNED)
    stand.put({**signed_for("others", "annex"), "topic": "commands", "platform": "campus"})
    stand.put({**signed_for(), **change})
    assert stand.reported() == [("REJECTED", "SIGNATURE")] * 2


def test_a_signature_of_the_old_version_counts_unless_a_place_is_required(stand):
    old = signed_for(None, None, command_id="old")
    stand.start(rule=SIGNED)
    stand.put(old)
    stand.start(rule=SIGNED, signature_place_required="true")
    stand.put(signed_for(None, None, command_id="old too"), signed_for("commands", None, command_id="half"))
    stand.put(signed_for(command_id="new"))
    assert stand.reported("old") == [("ACCEPTED", "")]
    assert stand.reported("old too") == stand.reported("half") == [("REJECTED", "SIGNATURE")]
    assert stand.reported("new") == [("ACCEPTED", "")]


def test_the_program_signs_topic_and_platform(stand):
    now = time.time_ns() // 1000
    wish = parsing.CommandDraft({"writes": [{"point": POINT, "value": 21.0}]})
    complete = DraftDefaults({}, "boss", now, now + 60_000_000, KEY, "campus")
    sent = prepare(wish, "commands", "json", complete).record.value
    assert (sent["topic"], sent["platform"]) == ("commands", "campus")
    stand.start(rule=SIGNED, signature_place_required="true")
    stand.put(sent)
    assert stand.reported() == [("ACCEPTED", "")]


def test_a_command_without_a_place_is_in_the_ledger_as_versions_before_had_it(given):
    plain = from_value(given.value(), Defaults())
    assert "topic" not in plain.to_json()
    assert "platform" not in plain.to_json()


# Floods.


def flood(kind, number):
    if kind == "no JSON":
        return Unreadable(b"{", ValueError("Expecting property name"))
    changes: dict[str, dict[str, Any]] = {
        "no command": {"writes": []},
        "expired": {"expires_at": 1},
        "out of range": {"writes": [{"point": POINT, "value": 101.0}]},
        "a stranger's": {"issuer": "stranger"},
        "elsewhere": {"topic": "others"},
        "again": {"command_id": "the same", "issued_at": 1_800_000_000_000_000},
    }
    return {**new_command(f"{kind} {number}"), **changes[kind]}


KINDS = ["no JSON", "no command", "expired", "out of range", "a stranger's", "elsewhere", "again"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_thousand_refused_records_are_few_writes_and_each_is_answered(stand, kind):
    stand.start()
    stand.put(*(flood(kind, number) for number in range(2000)), new_command("behind them"))
    assert len(stand.reported()) == 2001
    assert stand.reported("behind them") == [("ACCEPTED", "")]
    assert stand.writes() <= 5
    assert stand.changelogs.offsets == {TopicPartition("commands", 0): 2001}


def test_one_id_two_thousand_times_is_one_command_and_one_write(stand):
    stand.start()
    command = new_command()
    stand.put(*[command] * 2000)
    assert stand.reported() == [("ACCEPTED", "")]
    assert stand.writes() == 1
    assert stand.context.counters["repeated"] == 1999


def test_unknown_issuers_in_one_batch_are_limited_as_in_many_batches(stand):
    stand.start()
    stand.put(*(flood("a stranger's", number) for number in range(2000)))
    entries = stand.changelogs.entries(TopicPartition("commands", 0))
    assert len(entries.keys() - {KEY_OF_NOTE}) == 1000


@pytest.mark.parametrize("batches", [1, 20])
def test_an_issuer_that_fills_its_half_of_the_slots_is_rejected_and_delays_no_other(stand, batches):
    """Waiting commands do not start before their time, so no slot becomes free meanwhile."""
    later = {"not_before": time.time_ns() // 1000 + 30_000_000}
    flooded = [new_command(f"c{number}", **later) for number in range(20)]
    stand.start(RULE | {"issuers": ["boss", "engineer"]}, max_waiting="10")
    for first in range(0, 20, 20 // batches):
        stand.put(*flooded[first : first + 20 // batches])
    stand.put(new_command("other", issuer="engineer", **later))
    reported = stand.reported()
    assert reported == [("ACCEPTED", "")] * 5 + [("REJECTED", "TOO_MANY_WAIT")] * 15 + [("ACCEPTED", "")]
    assert stand.changelogs.offsets == {TopicPartition("commands", 0): 21}


def test_a_stop_does_not_wait_for_a_whole_flood(stand):
    stand.start()
    stand.context.stopping = True
    with pytest.raises(RetriableError, match="stops"):
        stand.put(*(flood("no JSON", number) for number in range(2000)))
    assert stand.writes() == 1
    assert 0 < stand.changelogs.offsets[TopicPartition("commands", 0)] < 2000


def test_a_batch_of_a_released_partition_raises_that_another_task_owns_it(stand):
    stand.start(partitions=2)
    stand.task.close([TopicPartition("commands", 1)], lost=True)
    with pytest.raises(FencedError, match="no longer owns commands-1"):
        stand.put({}, partition=1)
    stand.put({}, partition=0)
