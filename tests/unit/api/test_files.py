"""A file that a setting names is read at once or refused."""

import os
from pathlib import Path

import pytest

from tieline.api.files import read_small_file


def test_a_file_is_read_whole_up_to_its_limit(tmp_path):
    path = tmp_path / "f"
    for content in (b"", b"x" * 100):
        path.write_bytes(content)
        assert read_small_file(path, 100) == content
    path.write_bytes(b"x" * 101)
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        read_small_file(path, 100)


def test_anything_but_a_regular_file_is_rejected_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, why in (
        (tmp_path / "pipe", "is not a regular file"),
        (tmp_path, "is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
        (Path("/proc/self/environ"), "is not a file on a disk"),
        (Path("/proc/kmsg"), "is not a file on a disk"),
    ):
        with pytest.raises(ValueError, match=why):
            read_small_file(path)
