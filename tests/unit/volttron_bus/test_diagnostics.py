"""A prefix without messages is reported once, after ten minutes of listening."""

from tieline_connectors.volttron_bus.diagnostics import SilentPrefixes

NOTHING = "no message has arrived under"


def reported(caplog):
    messages = [record.getMessage().partition(" during ")[0] for record in caplog.records]
    caplog.clear()
    return messages


def test_a_silent_prefix_is_reported_once_and_one_that_was_heard_never(caplog):
    silence = SilentPrefixes([["devices/campus"], ["analysis"], ["record"]], now=100)
    silence.heard("devices/campus/a/all")
    silence.heard("analysis2/x")
    silence.check(699, connected=True)
    assert reported(caplog) == []
    silence.check(700, connected=True)
    assert reported(caplog) == [
        "no message has arrived under analysis",
        "no message has arrived under record",
    ]
    silence.check(10_000, connected=True)
    assert reported(caplog) == []


def test_a_message_under_one_prefix_of_all_is_enough(caplog):
    for heard, expected in (
        ("datalogger/x", []),
        ("record/x", [f"{NOTHING} devices, datalogger, actuators, analysis"]),
    ):
        silence = SilentPrefixes([["devices", "datalogger", "actuators", "analysis"]], now=0)
        silence.heard(heard)
        silence.check(600, connected=True)
        assert reported(caplog) == expected


def test_time_without_a_connection_does_not_count(caplog):
    silence = SilentPrefixes([["devices"]], now=0)
    silence.check(5_000, connected=False)
    silence.check(5_500, connected=True)
    assert reported(caplog) == []
    silence.check(5_600, connected=True)
    assert reported(caplog) == [f"{NOTHING} devices"]
