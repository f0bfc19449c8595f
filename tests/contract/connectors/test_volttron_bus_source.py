"""The bus source keeps the contract, on the stand-in router that tests/contract/bus verifies."""

from __future__ import annotations

import itertools
from typing import ClassVar

import pytest

from tieline.testing.contract import SourceContract
from tieline_connectors.volttron_bus.source import VolttronBusSource
from tieline_connectors.volttron_bus.testing.fake_historian import FakeHistorian
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter

pytestmark = pytest.mark.slow

IDENTITY = "tieline.contract"


class TestVolttronBusSource(SourceContract):
    connector = VolttronBusSource
    more: ClassVar[dict[str, str]] = {}

    @pytest.fixture
    def bus(self):
        with FakeRouter() as bus:
            yield bus
            assert bus.dropped == 0

    @pytest.fixture
    def settings(self, bus):
        return {
            "volttron.address": bus.address,
            "volttron.identity": IDENTITY,
            "platform.name": "lab",
            "topic": "bus",
            "reconnect.backoff.ms": "20",
            "reconnect.backoff.max.ms": "100",
            **self.more,
        }

    @pytest.fixture
    def break_it(self, bus):
        return bus.stop

    @pytest.fixture
    def heal_it(self, bus):
        return bus.start

    @pytest.fixture
    def worker_settings(self):
        return {}

    @pytest.fixture
    def feed(self, bus):
        numbers = itertools.count()

        def feed(count):
            bus.wait_for_subscriber(IDENTITY)  # what is published before is gone
            for number in itertools.islice(numbers, count):
                headers = {"TimeStamp": f"2026-01-01T00:00:{number:02}Z"}
                assert bus.publish("devices/campus/ahu1/all", headers, [{"n": number}, {}]) == 1

        return feed

    @pytest.fixture
    def outage(self):
        return {
            "volttron.address": "tcp://127.0.0.1:1",
            "platform.name": "lab",
            "reconnect.backoff.ms": "20",
            **self.more,
        }


class TestVolttronBusSourceWithBackfill(TestVolttronBusSource):
    more: ClassVar[dict[str, str]] = {"backfill.historian": "platform.historian"}

    @pytest.fixture
    def bus(self):
        historian = FakeHistorian()
        with FakeRouter(rpc={"platform.historian": historian.methods}) as bus:
            bus.listeners.append(historian.capture)
            yield bus
            assert bus.dropped == 0


def test_the_source_declares_that_it_is_not_replayable():
    assert VolttronBusSource.task_type.replayable is False
