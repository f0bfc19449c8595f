"""Commands as marks on a chart."""

from __future__ import annotations

import time

import pytest
from tests.unit.command.pages.conftest import command, result

from tieline.api.pages import Mark
from tieline_connectors.command.pages.lives import CommandBook

POINT = "campus/b1/ahu1/Setpoint"
SUBJECT = f"lab/{POINT}"
START = time.time_ns() // 1000
END = START + 10_000


def test_a_command_is_a_mark_at_its_first_result_with_the_state_of_its_last(site):
    site.add(command())
    site.add(result(state="ACCEPTED", at=START + 1000), "command-results")
    site.add(result(state="SUCCEEDED", at=START + 3000), "command-results")
    mark = Mark(SUBJECT, START + 1000, "70.0: SUCCEEDED", "/commands/c1")
    assert site.pages.marks([SUBJECT], START, END) == [mark]
    assert site.pages.marks([SUBJECT], START + 1000, START + 1001) == [mark]
    assert site.pages.marks([SUBJECT], START + 1001, END) == []
    assert site.pages.marks([SUBJECT], START, START + 1000) == []


def test_a_command_without_a_result_is_no_mark_yet(site):
    site.add(command())
    assert site.pages.marks([SUBJECT], START, END) == []


def test_a_result_marks_a_point_also_if_its_command_is_not_known(site):
    site.add(
        result(command_id="a/b", at=START + 7, writes=[{"point": POINT, "requested": None}]),
        "command-results",
    )
    (mark,) = site.pages.marks([SUBJECT], START, END)
    assert (mark.text, mark.path) == ("revert: SUCCEEDED", "/commands/a%2Fb")


@pytest.mark.parametrize("subject", [f"other/{POINT}", f"lab/{POINT}2", "lab/campus/b1/ahu1", "lab", ""])
def test_another_point_or_platform_has_no_mark(site, subject):
    site.add(command())
    site.add(result(at=START), "command-results")
    assert site.pages.marks([subject], START, END) == []


def test_a_command_of_another_platform_is_no_mark(site):
    site.add(command(platform="north"))
    site.add(result(at=START), "command-results")
    assert site.pages.marks([SUBJECT], START, END) == []


def test_only_the_newest_500_are_marks(site):
    for number in range(501):
        site.add(result(f"c{number}", at=START + number), "command-results")
    marks = site.pages.marks([SUBJECT], START, END)
    assert [mark.time - START for mark in marks] == list(range(1, 501))


def test_a_book_says_until_when_it_has_dropped_commands():
    book = CommandBook(limit=2)
    for number in (1, 2, 3):
        book.add(result(f"c{number}", at=number * 1000), "command-results")
    assert book.dropped_until == 1000
    assert {life.command_id for life in book.of_key("campus/b1/ahu1/setpoint")} == {"c2", "c3"}
