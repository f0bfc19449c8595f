"""What a pattern takes of all topics."""

import re

import pytest

from tieline.broker.internal import matches

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


def test_kafkas_own_topics_are_taken_by_no_pattern():
    assert not matches(re.compile(".*"), "__consumer_offsets", ["__consumer_offsets"], ())
