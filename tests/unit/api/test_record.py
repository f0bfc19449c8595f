from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.api import (
    DIGEST_HEADER,
    ID_HEADER,
    ConfigError,
    ConfigProblem,
    DataError,
    RetriableError,
    SourceRecord,
    TopicPartition,
    header,
    identity,
)

PARTS = st.lists(st.text() | st.binary() | st.integers(), max_size=4)


def test_the_last_header_of_a_key_counts():
    record = SourceRecord("t", 1, headers=(("a", b"1"), ("b", None), ("a", b"2")))
    assert (header(record, "a"), header(record, "b"), header(record, "c")) == (b"2", None, None)


def test_an_identity_is_128_bits_of_each_in_hexadecimal():
    (id_key, id_value), (digest_key, digest_value) = identity("a", 1, digest_of=b"x")
    assert (id_key, digest_key) == (ID_HEADER, DIGEST_HEADER)
    assert len(bytes.fromhex((id_value or b"").decode())) == 16
    assert len(bytes.fromhex((digest_value or b"").decode())) == 16


def as_bytes(part):
    return part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")


@given(PARTS, PARTS)
def test_two_lists_of_parts_have_one_id_only_if_they_are_the_same_bytes(one, other):
    alike = [as_bytes(part) for part in one] == [as_bytes(part) for part in other]
    assert (identity(*one)[0] == identity(*other)[0]) == alike


def test_where_a_part_ends_matters():
    assert identity("ab", "c")[0] != identity("a", "bc")[0]
    assert identity("a", "")[0] != identity("a")[0]


@given(st.binary(), st.binary())
def test_the_digest_depends_on_the_content_and_the_id_does_not(one, other):
    first, second = identity("a", digest_of=one), identity("a", digest_of=other)
    assert first[0] == second[0]
    assert (first[1] == second[1]) == (one == other)


def test_an_identity_is_the_same_in_every_process():
    text = "from tieline.api import identity; print(identity('é', b'x', 5, digest_of=b'y'))"
    out = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
    assert out.strip() == repr(identity("é", b"x", 5, digest_of=b"y"))


def test_a_data_error_says_how_many_and_the_first_cause():
    error = DataError({7: ValueError("bad"), 3: ValueError("worse")})
    assert str(error) == "2 record(s) cannot be handled; record 3 of the batch: worse"
    assert list(error.failures) == [7, 3]


def test_an_outage_may_name_partitions_and_the_earliest_retry():
    error = RetriableError("away", after=2.5, partitions=[TopicPartition("t", 0)] * 2)
    assert (error.after, error.partitions) == (2.5, frozenset([TopicPartition("t", 0)]))
    assert (RetriableError("away").after, RetriableError("away").partitions) == (None, None)


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (ConfigProblem("a.yaml", "k", "wrong"), "a.yaml: k: wrong"),
        (ConfigProblem("", "k", "wrong"), "k: wrong"),
        (ConfigProblem("a.yaml", "", "wrong"), "a.yaml: wrong"),
    ],
)
def test_a_problem_is_one_line(problem, line):
    assert str(problem) == line
    assert str(ConfigError([problem])) == f"1 problem in the configuration:\n  - {line}"
