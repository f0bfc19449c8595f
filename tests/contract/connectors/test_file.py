"""The file source and sink keep the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from tieline.testing.contract import SinkContract, SourceContract
from tieline_connectors.file.sink import FileSink
from tieline_connectors.file.source import FileSource


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
        return {"file": str(tmp_path / "no" / "in.txt"), "topic": "lines"}


class TestFileSink(SinkContract):
    connector = FileSink
    test_a_bad_record_is_named_and_all_others_are_written = None  # type: ignore[assignment]  # a line takes any value

    @pytest.fixture
    def settings(self, tmp_path):
        return {"file": str(tmp_path / "out.txt")}

    @pytest.fixture
    def written(self, settings):
        return lambda: Path(settings["file"]).read_text("utf-8").splitlines()

    @pytest.fixture
    def outage(self, tmp_path):
        return {"file": str(tmp_path / "no" / "out.txt")}
