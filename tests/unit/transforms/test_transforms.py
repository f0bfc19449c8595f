from __future__ import annotations

import pytest

from tieline.api import ConfigError, SinkRecord, SourceRecord
from tieline.transforms.filter import Filter
from tieline.transforms.insert_header import InsertHeader
from tieline.transforms.regex_router import RegexRouter


def started(transform, **settings):
    return transform(transform.config_type.parse({k.replace("_", "."): v for k, v in settings.items()}))


def problems(transform, **settings):
    with pytest.raises(ConfigError) as caught:
        started(transform, **settings)
    return [f"{problem.key}: {problem.message}" for problem in caught.value.problems]


def records(*topics, key=None):
    return [SourceRecord(topic, 1, key) for topic in topics]


def test_filter_drops_whole_topics_that_match_and_keeps_the_indexes():
    batch = records("a", "ab", "b", "a")
    assert started(Filter, topic_regex="a").apply(batch) == [None, batch[1], batch[2], None]


def test_filter_drops_by_key_as_text_and_never_a_null_key():
    keep, drop, number = SourceRecord("t", 1, None), SourceRecord("t", 1, "None"), SourceRecord("t", 1, 5)
    assert started(Filter, key_regex="None|5").apply([keep, drop, number]) == [keep, None, None]


def test_filter_with_both_drops_what_either_matches():
    batch = [SourceRecord("a", 1, "x"), SourceRecord("b", 1, "y"), SourceRecord("b", 1, "x")]
    assert started(Filter, topic_regex="a", key_regex="y").apply(batch) == [None, None, batch[2]]


def test_filter_needs_an_expression_that_compiles():
    assert problems(Filter) == ["topic.regex: give topic.regex or key.regex"]
    assert [m.partition(":")[0] for m in problems(Filter, topic_regex="(", key_regex="[")] == [
        "topic.regex",
        "key.regex",
    ]


@pytest.mark.parametrize("kind", [SourceRecord, SinkRecord])
def test_insert_header_adds_after_the_existing_headers(kind):
    rest = () if kind is SourceRecord else (0, 0)
    record = kind("t", *rest, 1)._replace(headers=(("h", b"1"),))
    (out,) = started(InsertHeader, header="h", value_literal="é").apply([record])
    assert out == record._replace(headers=(("h", b"1"), ("h", "é".encode())))


def test_insert_header_needs_a_header():
    assert len(problems(InsertHeader, header="", value_literal="x")) == 1
    assert len(problems(InsertHeader)) == 2


@pytest.mark.parametrize(
    ("regex", "replacement", "topic", "expected"),
    [
        ("devices-(.*)", "d.$1", "devices-ahu1", "d.ahu1"),
        ("(.)(.)", "$2$1", "ab", "ba"),
        ("a", "x", "ab", "ab"),
        ("a", r"\1$", "a", r"\1$"),
        ("(a)(b)?", "$1-$2", "a", "a-"),
        ("(.*)", "$10", "a", None),
        ("(.*)", "${1}", "a", "${1}"),
    ],
)
def test_regex_router_rewrites_whole_topics(regex, replacement, topic, expected):
    if expected is None:
        assert problems(RegexRouter, regex=regex, replacement=replacement) == [
            "replacement: regex has no group 10"
        ]
    else:
        (out,) = started(RegexRouter, regex=regex, replacement=replacement).apply(records(topic))
        assert out == SourceRecord(expected, 1)


def test_regex_router_does_not_change_records_that_do_not_match():
    batch = records("a", "b")
    out = started(RegexRouter, regex="a", replacement="c").apply(batch)
    assert [record.topic for record in out] == ["c", "b"]
    assert out[1] is batch[1]


def test_regex_router_needs_an_expression_that_compiles():
    assert problems(RegexRouter, regex="(", replacement="x")[0].startswith("regex: not a regular expression")


@pytest.mark.parametrize("transform", [Filter, InsertHeader, RegexRouter])
def test_every_setting_of_a_transform_is_documented(transform):
    assert all(entry["documentation"] for entry in transform.config_type.definition())
