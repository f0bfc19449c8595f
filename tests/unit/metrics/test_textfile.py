"""The file for the node exporter is always complete, readable by it, and gone with the worker."""

from __future__ import annotations

import os
import stat

import pytest

from tieline.api import ConfigError
from tieline.config.plan import check_plan
from tieline.metrics.textfile import MetricsTextfile


@pytest.fixture
def narrow_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_the_file_is_replaced_as_a_whole_and_other_users_can_read_it(tmp_path, narrow_umask):
    path = tmp_path / "tieline.prom"
    texts = iter([b"first\n", b"second, longer\n", b"3\n"])
    file = MetricsTextfile(path, lambda: next(texts))
    file.write()
    with path.open("rb") as opened:
        file.write()
        assert opened.read() == b"first\n"  # a reader keeps the file that it has opened
    assert path.read_bytes() == b"second, longer\n"
    file.write()
    assert path.read_bytes() == b"3\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["tieline.prom"]
    file.remove()
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_logged_once_and_stops_nothing(tmp_path, caplog):
    folder = tmp_path / "later"
    file = MetricsTextfile(folder / "tieline.prom", lambda: b"x\n")
    for _ in range(3):
        file.write()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "later/tieline.prom: [Errno 2]" in caplog.text
    folder.mkdir()
    file.write()
    assert (folder / "tieline.prom").read_bytes() == b"x\n"


def test_a_link_in_place_of_the_new_file_is_not_followed(tmp_path, caplog):
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / f".tieline.prom.{os.getpid()}.new").symlink_to(victim)
    MetricsTextfile(tmp_path / "tieline.prom", lambda: b"x\n").write()
    assert victim.read_text() == "kept"
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize(
    ("name", "problem"), [("tieline.txt", "does not end in .prom"), ("no/tieline.prom", "does not exist")]
)
def test_a_file_that_the_node_exporter_would_not_read_is_an_error_of_the_configuration(
    name, problem, tmp_path
):
    with pytest.raises(ConfigError) as raised:
        check_plan("worker", {"metrics.textfile": str(tmp_path / name)}, [])
    assert [each.key for each in raised.value.problems] == ["metrics.textfile"]
    assert problem in str(raised.value)
