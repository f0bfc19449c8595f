"""Smaller parts: the sampler's rates, times as text, the store, the vendored assets, the listener."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import stat
from pathlib import Path

import pytest

from tieline.api import StartupError
from tieline.config.listener import listener_settings
from tieline.ui import audit, vendoring
from tieline.ui.audit import PageAudit
from tieline.ui.sampler import Rates, Sampler
from tieline.ui.site import chosen_theme, chosen_zone
from tieline.ui.store import MAX_SESSIONS, PageStore, Session
from tieline.ui.templating import ago, moment, number, time_span


def ledger(received, delivered):
    return {"c": {"received": received, "delivered": delivered}}


def test_rates_are_taken_over_ten_seconds():
    now, counts = [0.0], [0]
    sampler = Sampler(lambda: ledger(counts[0], counts[0] // 2), lambda: True, lambda: now[0])
    sampler.fresh()
    assert sampler.rates("c") == Rates(None, None)
    for _ in range(30):
        now[0] += 2
        counts[0] += 20
        sampler.fresh()
    assert sampler.rates("c") == Rates(10.0, 5.0)
    assert sampler.rates("unknown") == Rates(None, None)


def test_a_sample_is_used_again_within_a_second():
    now, reads = [0.0], []

    def read():
        reads.append(now[0])
        return ledger(0, 0)

    sampler = Sampler(read, lambda: True, lambda: now[0])
    for time in (0.0, 0.5, 1.0, 1.1, 2.0, 2.2):
        now[0] = time
        sampler.fresh()
    assert len(reads) == 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (-5, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (7200, "2 h"),
        (86400 * 3, "3 d"),
    ],
)
def test_a_span_of_time_is_two_words(seconds, text):
    assert time_span(seconds) == text


def test_a_time_is_relative_in_the_text_and_absolute_on_hover():
    html = ago(1769860800000, 1769860860000, "Europe/Berlin")
    assert html == (
        '<time datetime="2026-01-31T12:00:00+00:00" title="2026-01-31 13:00:00.000 CET"'
        ' data-ms="1769860800000">1 min ago</time>'
    )
    assert ">in 59 s<" in ago(1769860919000, 1769860860000)
    assert moment(1e30) == "1e+30 ms"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "True"),
        (1234567, "1\u202f234\u202f567"),
        (21.50000001, "21.5"),
        (float("nan"), "nan"),
        ("<b>", "<b>"),
    ],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_a_zone_or_theme_that_does_not_exist_is_ignored():
    assert chosen_zone("", "Europe/Berlin") == "Europe/Berlin"
    assert chosen_zone("Asia/Tokyo", "Europe/Berlin") == "Asia/Tokyo"
    assert [chosen_zone("", zone) for zone in ("../etc/passwd", "x" * 9999, "\0", "Nowhere/Here")] == [
        "UTC"
    ] * 4
    assert [chosen_theme(text) for text in ("light", "dark", '"><script>', "")] == ["light", "dark", "", ""]


def test_the_store_is_private_and_keeps_no_token(tmp_path):
    path = tmp_path / "data" / "pages.db"
    store = PageStore(path)
    store.add_session(hashlib.sha256(b"token").digest(), Session("ann", 1.0, 1.0), 0.0)
    store.set_preference("ann", "x", "y" * 65536)
    with pytest.raises(ValueError, match="at most 65536 bytes"):
        store.set_preference("ann", "x", "y" * 65537)
    secret = store.secret
    store.close()
    again = PageStore(path)
    assert again.secret == secret
    assert again.session(hashlib.sha256(b"token").digest()) == Session("ann", 1.0, 1.0)
    again.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_damaged_store_says_that_it_may_be_deleted(tmp_path):
    path = tmp_path / "pages.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StartupError, match=r"pages\.db cannot be opened.*delete it"):
        PageStore(path)


def test_a_store_is_not_written_through_a_link(tmp_path):
    target = tmp_path / "target"
    target.touch()
    os.symlink(target, tmp_path / "pages.db")
    with pytest.raises(StartupError, match="cannot be opened"):
        PageStore(tmp_path / "pages.db")


def test_each_vendored_file_is_the_one_that_was_listed():
    packages = json.loads((vendoring.FOLDER / "vendor.json").read_text())
    listed = {file["name"]: file["sha256"] for package in packages for file in package["files"]}
    files = {path.name for path in vendoring.FOLDER.iterdir()} - {"vendor.json"}
    assert files == listed.keys()
    for name, digest in listed.items():
        assert hashlib.sha256((vendoring.FOLDER / name).read_bytes()).hexdigest() == digest, name
    assert all(package["licence"] in ("0BSD", "MIT") for package in packages)


@pytest.mark.parametrize(
    ("address", "listen"),
    [
        ("http://127.0.0.1:8083", "127.0.0.1:8083"),
        ("HTTP://localhost:8083/", "localhost:8083"),
        ("http://[::1]:8083", "[::1]:8083"),
        ("http://:8083", "0.0.0.0:8083"),
    ],
)
def test_a_listener_is_an_address_as_in_kafka_connect(address, listen):
    assert listener_settings({"listeners": address}) == {"listen": listen}


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8083",
        "http://127.0.0.1",
        "ftp://x:1",
        "http://x:99999",
        "http://x:1,http://y:2",
        "http://x:1/y",
    ],
)
def test_another_form_of_listener_is_rejected_with_an_example(address):
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:8083"):
        listener_settings({"listeners": address})


def test_https_and_a_certificate_need_each_other():
    with pytest.raises(ValueError, match=r"https needs listeners\.ssl\.certificate\.location"):
        listener_settings({"listeners": "https://x:1"})
    with pytest.raises(ValueError, match="begins with https"):
        listener_settings({"listeners": "http://x:1", "listeners.ssl.certificate.location": "c"})


def test_a_user_has_a_limited_number_of_sessions_and_the_newest_remain(tmp_path):
    store = PageStore(tmp_path / "pages.db")
    for number_ in range(MAX_SESSIONS + 20):
        store.add_session(number_.to_bytes(4, "big"), Session("otto", number_, number_), 0)
    store.add_session(b"vera", Session("vera", 1, 1), 0)
    is_there = [store.session(n.to_bytes(4, "big")) is not None for n in range(MAX_SESSIONS + 20)]
    assert is_there == [False] * 20 + [True] * MAX_SESSIONS
    assert store.session(b"vera") is not None
    store.close()


def test_a_line_of_the_audit_log_is_on_disk_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "audit.log"
    log = PageAudit(path)
    log.append("first", {"text": "\n\u202e" * 10})
    real, calls = os.write, []

    def almost_full(file, data):
        calls.append(len(data))
        if len(calls) == 1:
            return real(file, data[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", almost_full)
        with pytest.raises(OSError, match="No space left"):
            log.append("second", {})
    log.append("third", {})
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["first", "third"]


def test_the_rest_of_a_line_that_a_crash_cut_off_spoils_no_later_line(tmp_path):
    path = tmp_path / "audit.log"
    path.write_text('{"event": "cut o')
    PageAudit(path).append("later", {})
    assert json.loads(path.read_text().splitlines()[1])["event"] == "later"


@pytest.fixture
def small_files(monkeypatch):
    """Let a file of the audit log be full after a line of 200 bytes."""
    monkeypatch.setattr(audit, "MAX_BYTES", 100)
    monkeypatch.setattr(audit, "KEPT", 3)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_full_file_of_the_audit_log_is_kept_and_the_next_one_proves_it(tmp_path, small_files):
    log = PageAudit(tmp_path / "audit-pages.log")
    for turn in range(4):
        log.append(f"event {turn}", {"text": "x" * 200})
    files = [tmp_path / f"audit-pages.{each}.log" for each in (1, 2, 3)] + [tmp_path / "audit-pages.log"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    lines = [lines_of(file) for file in files]
    events = [line["event"] for each in lines for line in each if line["event"] != "continues"]
    assert events == [f"event {turn}" for turn in range(4)]
    for older, newer in itertools.pairwise(files):
        first = lines_of(newer)[0]
        digest = hashlib.sha256(older.read_bytes()).hexdigest()
        assert (first["event"], first["file"], first["sha256"]) == ("continues", older.name, digest)


def test_the_oldest_files_of_the_audit_log_are_deleted_and_no_number_is_used_twice(tmp_path, small_files):
    for turn in range(30):
        PageAudit(tmp_path / "audit-pages.log").append(f"event {turn}", {"text": "x" * 200})
    older = sorted(path.name for path in tmp_path.iterdir())
    assert older == ["audit-pages.27.log", "audit-pages.28.log", "audit-pages.29.log", "audit-pages.log"]


def test_a_crash_between_two_files_leaves_the_second_one_with_the_digest_of_the_first(tmp_path, small_files):
    PageAudit(tmp_path / "audit-pages.log").append("before", {})
    (tmp_path / "audit-pages.log").rename(tmp_path / "audit-pages.7.log")
    PageAudit(tmp_path / "audit-pages.log").append("after", {})
    first, second = lines_of(tmp_path / "audit-pages.log")
    assert (first["file"], second["event"]) == ("audit-pages.7.log", "after")


def test_a_file_that_cannot_be_renamed_is_continued(tmp_path, small_files, monkeypatch, caplog):
    path = tmp_path / "audit-pages.log"
    log = PageAudit(path)
    log.append("first", {"text": "x" * 200})

    def refused(self, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "rename", refused)
    log.append("second", {})
    assert [line["event"] for line in lines_of(path)] == ["first", "second"]
    assert "cannot be continued in a new file" in caplog.text
