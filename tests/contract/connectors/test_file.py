"""The file source and sink keep the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from tieline.testing.contract import SinkContract, SourceContract
from tieline_connectors.file.sink import FileSink
from tieline_connectors.file.source import FileSource

pytestmark = pytest.mark.slow


class TestFileSource(SourceContract):
    connector = FileSource

    @pytest.fixture
    def settings(self, tmp_path):
        return {"file": str(tmp_path / "in.txt"), "topic": "lines"}

    @pytest.fixture
    def feed(self, settings):
        fed = iter(range(1_000_000))

        def feed(count):
            with open(settings["file"], "a", encoding="utf-8") as file:
                file.writelines(f"line {next(fed)}\n" for _ in range(count))

        return feed

    @pytest.fixture
    def outage(self, tmp_path):
        (tmp_path / "a file").touch()
        return {"file": str(tmp_path / "a file" / "in.txt"), "topic": "lines"}

    @pytest.fixture
    def break_it(self, settings):
        """A folder in the file's place; a file that is not there is one that may appear later."""
        file = Path(settings["file"])

        def break_it():
            if file.exists():
                file.rename(file.with_suffix(".kept"))
            file.mkdir()

        return break_it

    @pytest.fixture
    def heal_it(self, settings):
        file = Path(settings["file"])

        def heal_it():
            file.rmdir()
            if file.with_suffix(".kept").exists():
                file.with_suffix(".kept").rename(file)

        return heal_it

    @pytest.fixture
    def worker_settings(self):
        return {}


class TestFileSink(SinkContract):
    connector = FileSink
    idempotent = False
    not_idempotent_because = "a text file has no keys"

    @pytest.fixture
    def settings(self, tmp_path):
        return {"file": str(tmp_path / "out.txt")}

    @pytest.fixture
    def written(self, settings):
        return lambda: Path(settings["file"]).read_text("utf-8").splitlines()

    @pytest.fixture
    def outage(self, tmp_path):
        return {"file": str(tmp_path / "no" / "out.txt")}
