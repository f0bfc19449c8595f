"""The contract that every source keeps, and what this one does beyond it."""

import itertools

import pytest
from tieline_acme.source import AcmeSource

from tieline.testing.contract import SourceContract


class TestAcmeSource(SourceContract):
    connector = AcmeSource

    @pytest.fixture
    def settings(self, tmp_path):
        (tmp_path / "in.txt").touch()
        return {"file": str(tmp_path / "in.txt"), "topic": "lines"}

    @pytest.fixture
    def outage(self, tmp_path):
        return None

    @pytest.fixture
    def feed(self, settings):
        numbers = itertools.count()

        def feed(count):
            with open(settings["file"], "a") as file:
                file.writelines(f"line {next(numbers)}\n" for _ in range(count))

        return feed
