"""Topics that name a device, depth first and breadth first."""

from __future__ import annotations

import pytest

from tieline_connectors.volttron_bus.messages.device_paths import BASES, TopicBase, with_defaults


@pytest.mark.parametrize(
    ("base", "topic", "place"),
    [
        (TopicBase("devices"), "devices/campus/building/ahu1/all", ("campus/building/ahu1", "all")),
        (TopicBase("devices"), "devices/a/Zone", ("a", "Zone")),
        (TopicBase("devices"), "devices/all", None),
        (TopicBase("devices"), "devices/actuators/schedule/result", None),
        (TopicBase("devices", "breadth"), "devices/actuators/value/devices/a/b", None),
        (TopicBase("devices"), "record/x/y", None),
        (
            TopicBase("points", "breadth"),
            "points/Zone/ahu1/building/campus",
            ("campus/building/ahu1", "Zone"),
        ),
        (TopicBase("points", "breadth"), "points/ahu1/building/campus/all", ("campus/building/ahu1", "all")),
        (
            TopicBase("points", "breadth"),
            "points/ahu1/building/campus/multi",
            ("campus/building/ahu1", "multi"),
        ),
        (
            TopicBase("devices", "breadth"),
            "devices/all/ahu1/building/campus",
            ("campus/building/ahu1", "all"),
        ),
        (TopicBase("points", "breadth"), "points/all", None),
        (TopicBase("points", "breadth"), "pointsX/all/a", None),
        (TopicBase("devices", "both"), "devices/all/ahu1/campus", ("campus/ahu1", "all")),
        (TopicBase("devices", "both"), "devices/campus/ahu1/all", ("campus/ahu1", "all")),
        (TopicBase("devices", "both"), "devices/campus/ahu1/Zone", ("campus/ahu1", "Zone")),
        (TopicBase("plant/points", "breadth"), "plant/points/Zone/b/a", ("a/b", "Zone")),
    ],
)
def test_a_topic_names_a_device_in_the_order_of_its_base(base, topic, place):
    assert base.device_path(topic) == place


def test_an_order_is_read_from_its_setting():
    assert TopicBase.parse(" /points/ = breadth ") == ("points", "breadth")


@pytest.mark.parametrize("text", ["points", "points=", "=breadth", "points=reverse", ""])
def test_an_invalid_order_is_reported_with_the_valid_form(text):
    with pytest.raises(ValueError, match=r"write base=depth\|breadth\|both"):
        TopicBase.parse(text)


def test_configured_orders_precede_the_defaults_and_longer_bases_come_first():
    assert set(with_defaults(())) == set(BASES)
    named = with_defaults((TopicBase("devices", "both"), TopicBase("devices/old", "breadth")))
    assert named == (
        TopicBase("devices/old", "breadth"),
        TopicBase("devices", "both"),
        TopicBase("points", "breadth"),
    )
