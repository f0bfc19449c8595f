"""A prefix under which nothing comes is reported once, when it has been listened to for ten minutes."""

from tieline_connectors.volttron_bus.oddities import SilentPrefixes


def reported(caplog):
    found = [record.getMessage().partition(" in the ")[0] for record in caplog.records]
    caplog.clear()
    return found


def test_a_silent_prefix_is_reported_once_and_one_that_was_heard_never(caplog):
    silence = SilentPrefixes([["devices/campus"], ["analysis"], ["record"]], now=100)
    silence.heard("devices/campus/a/all")
    silence.heard("analysis2/x")
    silence.look(699, connected=True)
    assert reported(caplog) == []
    silence.look(700, connected=True)
    assert reported(caplog) == ["nothing has come under analysis", "nothing has come under record"]
    silence.look(10_000, connected=True)
    assert reported(caplog) == []


def test_of_all_one_prefix_that_is_heard_is_enough(caplog):
    for heard, expected in (
        ("datalogger/x", []),
        ("record/x", ["nothing has come under devices, datalogger, actuators, analysis"]),
    ):
        silence = SilentPrefixes([["devices", "datalogger", "actuators", "analysis"]], now=0)
        silence.heard(heard)
        silence.look(600, connected=True)
        assert reported(caplog) == expected


def test_time_without_a_connection_does_not_count(caplog):
    silence = SilentPrefixes([["devices"]], now=0)
    silence.look(5_000, connected=False)
    silence.look(5_500, connected=True)
    assert reported(caplog) == []
    silence.look(5_600, connected=True)
    assert reported(caplog) == ["nothing has come under devices"]
