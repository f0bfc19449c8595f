"""A clean stop leaves no peer behind on a real platform."""

import base64
import time

import pytest
import zmq
from zmq.utils import z85

from tieline.testing.sink_context import RecordingSinkContext
from tieline.testing.source_context import RecordingSourceContext
from tieline_connectors.command.execution.platform_client import Platform
from tieline_connectors.volttron_bus.sink import VolttronBusSinkTask
from tieline_connectors.volttron_bus.sink_config import VolttronBusSinkConfig
from tieline_connectors.volttron_bus.source import VolttronBusTask
from tieline_connectors.volttron_bus.source_config import VolttronBusConfig
from tieline_connectors.volttron_bus.vip.connection import Endpoint
from tieline_connectors.volttron_bus.vip.credentials import CurveKeys
from tieline_lab.volttron import VolttronPlatform, why_not

pytestmark = [pytest.mark.volttron, pytest.mark.skipif(bool(why_not()), reason=str(why_not()))]


def settings(platform, identity, **others):
    keys = platform.keys(identity)
    return {
        "volttron.address": platform.address,
        "volttron.identity": identity,
        "volttron.secretkey": keys["secretkey"],
        "volttron.serverkey": keys["serverkey"],
        "platform.name": "lab",
        **others,
    }


def start_and_stop_connectors(platform):
    """Start a source, a bus sink and a command sink, and stop each cleanly."""
    source = VolttronBusTask(
        RecordingSourceContext(), VolttronBusConfig.parse(settings(platform, "tieline", topic="t"))
    )
    source.start()
    deadline = time.monotonic() + 30
    while not source.poll(1000, 0.1):
        assert time.monotonic() < deadline
    sink_settings = settings(platform, "tieline.way-back", **{"bus.allowed.prefixes": "analysis"})
    sink = VolttronBusSinkTask(RecordingSinkContext(), VolttronBusSinkConfig.parse(sink_settings))
    sink.start()
    keys = {name: key.encode() for name, key in platform.keys("tieline.command").items()}
    commands = Platform(Endpoint(platform.address, "tieline.command", CurveKeys(**keys)), 5.0, agent="driver")
    commands.connect()
    source.interrupt()
    source.stop()
    sink.interrupt()
    sink.stop()
    commands.close()


def test_vctl_auth_add_after_a_clean_stop_does_not_end_the_platform(tmp_path):
    """10.x ends at a message to a peer that left without a word, and `auth add` sends one to each peer."""
    with VolttronPlatform(tmp_path, "10") as platform:
        start_and_stop_connectors(platform)
        public, _ = zmq.curve_keypair()
        key = base64.urlsafe_b64encode(z85.decode(public)).decode().rstrip("=")
        platform.vctl("auth", "add", "--user_id", "X", "--credentials", key)
        time.sleep(3.0)  # it sends messages to its peers later
        assert platform.platform.running
        with platform.connect("spare2") as observer:
            observer.call("platform.driver", "get_point", "campus/building/device1", "Reading")
