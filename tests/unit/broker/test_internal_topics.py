"""What a pattern takes of all topics."""

import re

import pytest

from tieline.broker.internal import matches, replay_topic

TOPICS = ["readings", "commands", "plant.x", "sink-commands-changelog", "my-changelog", "_schemas", "offsets"]


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        (".*", {"readings", "commands", "plant.x", "my-changelog"}),
        ("_.*", set()),
        ("_schemas", {"_schemas"}),
        ("sink-commands-changelog", {"sink-commands-changelog"}),
        (r"sink\-commands\-changelog", {"sink-commands-changelog"}),
        (".*changelog", {"my-changelog"}),
        ("off.*", set()),
        ("offsets", {"offsets"}),
    ],
)
def test_a_pattern_takes_no_internal_topic_that_it_does_not_name_exactly(pattern, taken):
    assert {t for t in TOPICS if matches(re.compile(pattern), t, TOPICS, {"offsets"})} == taken


@pytest.mark.parametrize("topic", ["tieline-dlq-jobs", replay_topic("store")])
def test_what_replays_write_is_taken_only_by_its_exact_name(topic):
    assert not matches(re.compile(".*"), topic, [topic], ())
    assert matches(re.compile(re.escape(topic)), topic, [topic], ())


@pytest.mark.parametrize("name", ["store", "plant 7/ä", "x" * 300])
def test_a_replay_topic_has_a_name_that_kafka_accepts_and_no_other_connector_has(name):
    topic = replay_topic(name)
    assert re.fullmatch("[a-zA-Z0-9._-]{1,249}", topic)
    assert topic != replay_topic(re.sub("[^a-z0-9]", "_", name[:200]) + "_")


def test_kafkas_own_topics_are_taken_by_no_pattern():
    assert not matches(re.compile(".*"), "__consumer_offsets", ["__consumer_offsets"], ())
