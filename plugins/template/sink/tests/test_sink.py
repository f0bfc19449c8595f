"""The contract that every sink keeps, and what this one does beyond it."""

import json
from pathlib import Path

import pytest
from tieline_acme.sink import AcmeSink

from tieline.testing.contract import SinkContract


class TestAcmeSink(SinkContract):
    connector = AcmeSink

    @pytest.fixture
    def settings(self, tmp_path):
        return {"file": str(tmp_path / "out.jsonl")}

    @pytest.fixture
    def written(self, settings):
        return lambda: [json.loads(line) for line in Path(settings["file"]).read_text().splitlines()]

    @pytest.fixture
    def bad_value(self):
        return {"no JSON": object()}
