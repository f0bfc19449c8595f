"""The newest lines of a worker's log in a bounded file."""

import json
import logging
import os

import pytest

from tieline import logs
from tieline.recent_log import BoundedFile, previous


@pytest.fixture
def root():
    """The root logger, as it was before the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    for handler in root.handlers[:]:
        if handler not in handlers:
            handler.close()
    root.handlers[:], root.level = handlers, level


def lines(path):
    for handler in logging.getLogger().handlers:
        handler.flush()
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_kept_without_secrets_and_without_progress(root, tmp_path):
    path = tmp_path / "workers" / "recent.log"
    logs.set_up(style="human", level="INFO")
    logs.redaction.add(["a secret of the test"])
    logs.keep_recent(path)
    log = logging.getLogger("tieline.test")
    log.info("progress", extra={"ledger": {}})
    log.warning("not connected: %s", "a secret of the test")
    assert [line["event"] for line in lines(path)] == ["not connected: ********"]
    assert path.stat().st_mode & 0o077 == 0


def test_a_repeated_line_of_a_library_is_counted_once_for_both_logs(root, tmp_path):
    path = tmp_path / "recent.log"
    logs.set_up(style="json", level="INFO")
    logs.keep_recent(path)
    for _ in range(5):
        logging.getLogger("somelibrary").warning("cannot connect")
    assert [line["event"] for line in lines(path)] == ["cannot connect"]


def test_the_file_starts_over_when_it_is_full_and_one_former_file_is_kept(tmp_path):
    path = tmp_path / "recent.log"
    file = BoundedFile(path, 100)
    for number in range(50):
        os.write(file.fileno(), b"%019d\n" % number)
    file.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["recent.log", "recent.log.1"]
    kept = [int(line) for part in (previous(path), path) for line in part.read_text().splitlines()]
    assert kept == list(range(50 - len(kept), 50))
    assert 5 < len(kept) <= 10


def test_without_a_disk_nothing_is_raised(root, tmp_path):
    (tmp_path / "file").touch()
    logs.set_up(style="json", level="INFO")
    logs.keep_recent(tmp_path / "file" / "recent.log")
    logging.getLogger("tieline.test").warning("still here")
    for handler in root.handlers:
        handler.flush()
    assert (tmp_path / "file").read_bytes() == b""
