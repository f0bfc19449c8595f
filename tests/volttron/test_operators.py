"""The steps of docs/how-to/volttron.md work on real platforms."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager

import pytest

from tieline.testing.source_context import RecordingSourceContext
from tieline_connectors.volttron_bus.source import VolttronBusTask
from tieline_connectors.volttron_bus.source_config import VolttronBusConfig
from tieline_lab.volttron import VolttronPlatform, why_not

pytestmark = [pytest.mark.volttron, pytest.mark.skipif(bool(why_not()), reason=str(why_not()))]


class ConnectedContext(RecordingSourceContext):
    """``is_connected`` is set when the task has reported a connection, which is after it has subscribed."""

    def __init__(self):
        super().__init__()
        self.is_connected = threading.Event()

    def connected(self, system):
        super().connected(system)
        self.is_connected.set()


@contextmanager
def source(**settings):
    config = VolttronBusConfig.parse(
        {"platform.name": "lab"} | {key.replace("__", "."): value for key, value in settings.items()}
    )
    context = ConnectedContext()
    task = VolttronBusTask(context, config)
    task.start()
    try:
        yield task, context.is_connected
    finally:
        task.interrupt()
        task.stop()


def receive(task, seconds):
    """Return the first records that arrive; empty if none arrive in time."""
    end = time.monotonic() + seconds
    while not (records := task.poll(1000, 0.1)) and time.monotonic() < end:
        pass
    return records


@pytest.mark.parametrize("generation", ["2", "10"])
def test_a_platform_is_read_through_its_local_socket(tmp_path, generation):
    with VolttronPlatform(tmp_path, generation) as platform:
        keys = platform.keys("tieline")
        settings = {"volttron__serverkey": keys["serverkey"], "volttron__secretkey": keys["secretkey"]}
        assert platform.local_address.startswith("ipc://@")
        with source(volttron__address=platform.local_address, **settings) as (task, _):
            records = receive(task, 40)
            assert records[0].value["device"].startswith("campus/building/device")


def test_keys_that_vctl_adds_on_10_work_under_any_identity_and_others_do_not(tmp_path):
    platform = VolttronPlatform(tmp_path, "10")
    platform.start()
    try:
        serverkey = platform.vctl("auth", "serverkey").strip()
        pair, other = (json.loads(platform.vctl("auth", "keypair")) for _ in range(2))
        assert serverkey == json.loads((platform.home / "keystore").read_text())["public"]
        platform.vctl("auth", "add", "--user_id", "X", "--credentials", pair["public"])
        common = {"volttron__address": platform.address, "volttron__serverkey": serverkey}
        for identity in ("X", "tieline.bus"):
            settings = {"volttron__identity": identity, "volttron__secretkey": pair["secret"]}
            with source(**common, **settings) as (_, is_connected):
                assert is_connected.wait(20)
        with source(**common, volttron__identity="Y", volttron__secretkey=other["secret"]) as (
            _,
            is_connected,
        ):
            assert not is_connected.wait(4)
    finally:
        platform.stop()
