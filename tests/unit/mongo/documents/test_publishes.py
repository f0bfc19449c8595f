"""Which readings a layout takes, and the warning where one device comes twice."""

import logging

import pytest

from tieline_connectors.mongo.documents.publishes import Publishes


def value(kind, device="c/b/a", topic=None):
    return {"platform": "lab", "device": device, "kind": kind, "topic": topic or f"devices/{device}/{kind}"}


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_readings_of_the_configured_kinds_and_other_data_are_accepted():
    publishes = Publishes(["ALL", "POINT"])

    values = [value("ALL"), value("MULTI"), value("POINT"), value("OTHER"), {"body": "1"}, "text", None]

    assert [publishes.skipped(publish) for publish in values] == [
        None,
        "MULTI",
        None,
        "OTHER",
        None,
        None,
        None,
    ]
    assert Publishes(None).skipped(value("OTHER")) is None


def test_a_field_named_kind_in_other_data_is_not_the_kind_of_a_reading():
    assert Publishes(["ALL"]).skipped({"kind": "pump"}) is None
    assert Publishes(["ALL"]).skipped({"kind": ["ALL"]}) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (value("ALL"), value("MULTI")),
        (value("MULTI"), value("MULTI", topic="points/a/b/c/multi")),
    ],
)
def test_a_device_that_arrives_in_two_forms_is_reported_once_with_the_fix(first, second, caplog):
    publishes = Publishes(["ALL", "MULTI"])

    for publish in (first, first, second, first, value("ALL", "x"), value("MULTI", "x")):
        publishes.skipped(publish)

    (warning,) = warnings(caplog)
    assert first["topic"] in warning
    assert second["topic"] in warning
    assert "publishes=MULTI" in warning


def test_two_devices_in_different_forms_cause_no_warning(caplog):
    publishes = Publishes(["ALL", "MULTI", "POINT"])

    for publish in (value("ALL"), value("MULTI", "x"), value("POINT"), value("ALL") | {"platform": "other"}):
        publishes.skipped(publish)
    for publish in (value("ALL"), value("MULTI")):
        Publishes(["MULTI"]).skipped(publish)
        Publishes(None).skipped(publish)

    assert warnings(caplog) == []
