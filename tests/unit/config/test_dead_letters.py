"""The settings of dead letters: nothing can be skipped unnoticed, and no connector reads its own letters."""

from __future__ import annotations

from pathlib import Path

import pytest

from tieline.api import ConfigError
from tieline.config.dead_letters import DeadLetterQueue, DeadLetterSettings, Window, parse_window
from tieline.config.plan import SinkPlan, check_plan

SINK = {"name": "s", "connector.class": "file", "file": "out.txt", "topics": "in"}
SOURCE = {"name": "s", "connector.class": "file", "file": "in.txt", "topic": "out"}
ALL = {"errors.tolerance": "all", "errors.deadletterqueue.topic.name": "dead"}


def problems(settings):
    try:
        check_plan("worker", {"data.dir": "data"}, [("file", settings)])
    except ConfigError as error:
        return {problem.key: problem.message for problem in error.problems}
    return {}


@pytest.mark.parametrize("connector", [SINK, SOURCE])
def test_tolerance_without_a_topic_is_refused_because_records_would_be_skipped_unnoticed(connector):
    reported = problems(connector | {"errors.tolerance": "all"})
    assert reported.keys() == {"errors.deadletterqueue.topic.name"}
    assert "would be skipped unnoticed. Give the name of a topic" in str(reported)
    assert problems(connector | ALL) == {}


def test_a_topic_without_tolerance_has_no_effect_and_says_so():
    reported = problems(SINK | {"errors.deadletterqueue.topic.name": "dead"})
    assert "Set errors.tolerance=all" in reported["errors.deadletterqueue.topic.name"]


@pytest.mark.parametrize(
    "topics",
    [{"topics": "in, dead"}, {"topics": "", "topics.regex": "dea."}, {"topics": "", "topics.regex": ".*"}],
)
def test_a_sink_cannot_read_its_own_dead_letters(topics):
    settings = {key: value for key, value in (SINK | ALL | topics).items() if value}
    assert "would read its own dead letters" in problems(settings)["errors.deadletterqueue.topic.name"]


def test_an_expression_that_does_not_match_the_topic_of_dead_letters_is_allowed():
    settings = {k: v for k, v in SINK.items() if k != "topics"} | ALL
    assert problems(settings | {"topics.regex": "in.*"}) == {}


def test_commands_are_answered_and_never_dead_lettered(tmp_path: Path):
    policy = tmp_path / "policy.yaml"
    policy.write_text("rules: []\n")
    command = {
        "name": "c",
        "connector.class": "command",
        "topics": "commands",
        "volttron.address": "tcp://127.0.0.1:22916",
        "policy.file": str(policy),
    }
    assert "a command must never wait in a dead letter queue" in problems(command | ALL)["errors.tolerance"]


@pytest.mark.parametrize(
    ("text", "window"), [("25/30", Window(25, 30)), ("0/1", Window(0, 1)), ("off", None), (" OFF ", None)]
)
def test_a_window_is_a_number_of_the_last_records(text, window):
    assert parse_window(text) == window


@pytest.mark.parametrize("text", ["", "25", "30/30", "31/30", "-1/5", "1/100001", "a/b", "1/2/3"])
def test_any_other_window_is_refused_with_an_example(text):
    reported = problems(SINK | ALL | {"errors.tolerance.window": text})
    assert reported.keys() == {"errors.tolerance.window"}
    assert "25/30" in str(reported) or "off tolerates all" in str(reported)


def test_the_defaults_keep_the_cause_and_stop_a_broken_converter():
    assert DeadLetterSettings.parse({}).dead_letters is None
    settings = DeadLetterSettings.parse(ALL | {"errors.tolerance": "ALL"})
    assert settings.dead_letters == DeadLetterQueue("dead", -1, context=True, window=Window(25, 30))


@pytest.mark.parametrize("topics", [{"topics": "in"}, {"topics.regex": "in.*"}])
def test_a_sink_also_reads_what_is_replayed_to_it_if_it_has_dead_letters(topics):
    base = {key: value for key, value in SINK.items() if key != "topics"} | topics
    (without,) = check_plan("worker", {}, [("file", base)]).connectors
    (with_letters,) = check_plan("worker", {}, [("file", base | ALL)]).connectors
    assert isinstance(without, SinkPlan)
    assert isinstance(with_letters, SinkPlan)
    assert without.settings.reads == without.settings.subscription
    subscribed, pattern = with_letters.settings.subscription
    assert with_letters.settings.reads == ((*subscribed, "tieline-replay-s"), pattern)
