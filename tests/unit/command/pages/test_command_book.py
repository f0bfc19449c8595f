"""What pages know about commands, whatever the topics contain."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.command.pages.conftest import command, result

from tieline.ui.templating import Templates
from tieline_connectors.command.pages import plugin
from tieline_connectors.command.pages.lives import CommandBook

TEMPLATES = Templates({"command": Path(plugin.__file__).with_name("templates")})
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
FIELDS = [
    *("command_id", "issuer", "issued_at", "expires_at", "action", "writes", "hold_ms", "priority", "reason"),
    *("state", "at", "started_at", "reason_code", "dry_run", "platform", "topic", "correlation_id"),
]


def book_of(*values):
    book = CommandBook()
    for value in values:
        book.add(value, "commands")
    return book


def html_of(book):
    common = {"problem": "", "now_ms": 0, "base": "/ui", "time_zone": "UTC", "can_release": True}
    values = {**common, "lives": list(book.newest()), "holds": book.holds()}
    each = [TEMPLATES.render("command_life.html", {**values, "life": life}) for life in values["lives"]]
    return "".join(
        [TEMPLATES.render("command_rows.html", values), TEMPLATES.render("hold_list.html", values), *each]
    )


@given(st.sampled_from([command(hold_ms=1000), result()]), st.sampled_from(FIELDS), ANYTHING)
def test_no_record_breaks_the_pages(base, field, value):
    book = book_of(command(hold_ms=1000), {**base, field: value}, result(), {**base, field: value})
    assert "c1" in html_of(book)


@given(
    st.lists(ANYTHING, max_size=3), st.sampled_from(["command_id", "point", "outcome", "requested", "reason"])
)
def test_no_write_breaks_the_pages(values, field):
    writes = [{"point": "a/b", field: value} for value in values] + values
    book = book_of(command("other"), result(writes=writes), command(writes=writes))
    assert "other" in html_of(book)


def test_what_is_kept_of_a_record_is_limited():
    huge = "x" * 10_000_000
    book = book_of(result(reason=huge, writes=[{"point": huge, "requested": huge}] * 1000))
    (life,) = book.newest()
    assert life.size < 500_000


def test_large_commands_replace_older_ones_before_they_fill_the_memory():
    book = CommandBook(max_size=20_000)
    for number in range(100):
        book.add(command(f"c{number}", reason="x" * 1000))
    kept = [life.command_id for life in book.newest()]
    assert kept[0] == "c99"
    assert 5 < len(kept) < 20


@pytest.mark.parametrize("code", ["CONFLICT", "WRONG_PLACE", "MALFORMED"])
@pytest.mark.parametrize("is_before_the_end", [True, False])
def test_another_record_with_its_id_changes_neither_the_state_of_a_command_nor_its_hold(
    code, is_before_the_end
):
    other = result(state="REJECTED", reason_code=code, writes=[{"point": "a/b", "outcome": "NOT_WRITTEN"}])
    results = [other, result()] if is_before_the_end else [result(), other]
    book = book_of(command(hold_ms=900_000), result(state="ACCEPTED"), *results)
    (life,) = book.newest()
    assert (life.state, life.explanation) == ("SUCCEEDED", "")
    assert book.holds() == [life]
    assert code in html_of(book)


def test_a_command_that_was_rejected_only_says_why():
    (life,) = book_of(result(state="REJECTED", reason_code="MALFORMED", reason="no id")).newest()
    assert (life.state, life.explanation) == ("REJECTED", "MALFORMED: no id")


def test_the_end_of_a_hold_counts_after_any_number_of_failed_tries():
    tries = [result(state="HOLD_FAILED", at=1_800_000_000_000_000 + number) for number in range(100)]
    book = book_of(command(hold_ms=900_000), result(at=1_800_000_000_000_000), *tries)
    assert len(book.holds()) == 1
    book.add(result(state="HOLD_ENDED", at=1_800_000_001_000_000))
    assert book.holds() == []
