"""The contract that every source keeps, and what this one does beyond it."""

import itertools
from pathlib import Path

import pytest
from tieline_acme.source import AcmeSource

from tieline.testing.contract import SourceContract


class TestAcmeSource(SourceContract):
    connector = AcmeSource

    @pytest.fixture
    def settings(self, tmp_path):
        """A working configuration."""
        (tmp_path / "in.txt").touch()
        return {"file": str(tmp_path / "in.txt"), "topic": "lines"}

    @pytest.fixture
    def feed(self, settings):
        """Make so many more records readable, each unlike every other."""
        numbers = itertools.count()

        def feed(count):
            with open(settings["file"], "a", encoding="utf-8") as file:
                file.writelines(f"line {next(numbers)}: it's 21 °C\n" for _ in range(count))

        return feed

    @pytest.fixture
    def outage(self, tmp_path):
        """A configuration whose external system cannot be reached."""
        return {"file": str(tmp_path / "no such folder" / "in.txt"), "topic": "lines"}

    @pytest.fixture
    def break_it(self, settings):
        """Make the external system unavailable, in the middle of a run."""
        return lambda: Path(settings["file"]).rename(settings["file"] + ".gone")

    @pytest.fixture
    def heal_it(self, settings):
        """Make it available again, with everything that it held."""
        return lambda: Path(settings["file"] + ".gone").rename(settings["file"])

    @pytest.fixture
    def worker_settings(self):
        """Settings of the worker that the kit runs and kills; remove it if a worker cannot reach yours."""
        return {}
