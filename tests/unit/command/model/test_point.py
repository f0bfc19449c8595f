"""One canonical text for each point: what is rejected, what is the same, and what a driver receives."""

import pytest

from tieline_connectors.command.model.command import Command, Write
from tieline_connectors.command.model.point import device_keys, key_of, point_of, point_pattern, split
from tieline_connectors.command.policy.patterns import matches_point
from tieline_connectors.command.policy.policy import PolicyContext

MODE = "campus/building/device1/Mode"

EVASIONS = [
    f"devices/devices/{MODE}",
    f"/devices/devices/{MODE}",
    f"devices/devices/devices/{MODE}",
    f"DEVICES/{MODE}",
    f"Devices/{MODE}",
    f"devices/DEVICES/{MODE}",
    f"dev\u200bices/{MODE}",
    f"\uff44evices/{MODE}",
    f"devices//{MODE}",
    f"devices/./{MODE}",
    f"./{MODE}",
    f"x/../{MODE}",
    "campus//building/device1/Mode",
    "campus/building/device1//Mode",
    "campus/building/device1/./Mode",
    "campus/building/device1 /Mode",
    f" {MODE}",
    f"{MODE} ",
    f"{MODE}\t",
    f"{MODE}\n",
    f"{MODE}\0",
    f"{MODE}\u00a0",
    f"{MODE}\u200b",
    f"{MODE}\u2060",
    f"{MODE}\ufeff",
    f"{MODE}\ufe0f",
    f"{MODE}\u3164",
    f"\u202e{MODE}",
    f"{MODE}\ud800",
    "campus/building/*/Mode",
    "campus/building/**",
    "campus/building{/}device1/Mode",
    "campus/b\u6e29/device1/Mode",
    "Mode",
    "devices/Mode",
    "/",
    "",
    None,
    7,
    b"campus/building/device1/Mode",
]


@pytest.mark.parametrize("written", EVASIONS)
def test_a_text_that_a_platform_could_read_differently_is_refused_with_the_reason(written):
    with pytest.raises(ValueError, match="a point "):
        point_of(written)


@pytest.mark.parametrize(
    "written",
    [
        f"devices/{MODE}",
        f"/devices/{MODE}/",
        f"//{MODE}//",
        MODE.upper(),
        MODE.title(),
        "campus/building/device1/M\uff4fde",
    ],
)
def test_no_spelling_of_a_point_gets_round_a_rule_that_denies_it(given, written):
    policy = given.policy(
        {"issuers": "*", "points": "campus/building/*/Mode", "deny": "never"},
        {"issuers": "*", "points": "**", "type": "text", "max_length": 9},
    )
    command = given.command(writes=[{"point": written, "value": "heat"}])
    refusal = policy.rejection(command, PolicyContext(given.T0))
    assert refusal is not None
    assert refusal.code == "POLICY_DENIED"
    assert command.devices == {"campus/building/device1"}


@pytest.mark.parametrize("rule", [f"devices/{MODE}", f"/{MODE}/", "devices/campus/**", "/devices/**/", "**"])
def test_a_pattern_of_a_policy_is_written_as_a_point_is(given, rule):
    policy = given.policy({"issuers": "*", "points": rule, "deny": "never"})
    refusal = policy.rejection(
        given.command(writes=[{"point": MODE, "value": "heat"}]), PolicyContext(given.T0)
    )
    assert refusal is not None
    assert refusal.code == "POLICY_DENIED"


@pytest.mark.parametrize("other", ["devices/A/B", "/a/b", "A/b", "a/\uff42"])
def test_two_writes_of_a_command_to_one_point_are_refused_however_they_are_spelled(given, other):
    with pytest.raises(ValueError, match="is written twice"):
        given.command(writes=[{"point": "a/b", "value": 1}, {"point": other, "value": 2}])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/Caf\u00e9", "a/Cafe\u0301"),
        ("a/Ma\u00dfe", "a/MASSE"),
        ("a/\u0130", "a/i\u0307"),
        ("a/\u03a3\u03a3", "a/\u03c3\u03c2"),
        ("a/Zone\u00a0Temp", "a/zone temp"),
        ("a/b/Zone{/}Temp", "a/b/zone/temp"),
        ("devices/devices/a/b", "a/b"),
    ],
)
def test_names_that_look_the_same_are_compared_as_the_same(one, other):
    assert key_of(one) == key_of(other)
    assert key_of(key_of(one)) == key_of(one)


NAMES = [
    "Zone$20Temp",
    "SAT-SP [x]",
    "A|B^C{1}?",
    "Zone Air Temp SP",
    "C:\\Temp\\",
    "50% (max)",
    "Au\u00dfenluft \u00b0C",
    "\u6e29\u5ea6",
    "Cafe\u0301",
    "Zone\u00a0Temp",
    "a{/b",
    "{}",
    "~!@#&+=;,<>'\"`",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_that_a_driver_publishes_can_be_commanded_and_ruled(name):
    point = point_of(f"campus/b/ahu1/{name.replace('/', '{/}')}")
    assert split(point) == ("campus/b/ahu1", name)
    assert Command.from_json(_command(point).to_json()).writes[0].point == point
    assert matches_point(point_pattern(point), point)
    assert not matches_point(point_pattern(point), "campus/b/ahu1/Other")


@pytest.mark.parametrize(
    ("point", "name", "fits"),
    [
        (
            "a/b/Zone{/}Temp",
            "Zone/Temp",
            ["a/b/Zone{/}Temp", "a/b/Zone/Temp", "a/**", "a/b/Z*{/}*", "a/b/*/Temp"],
        ),
        ("a/b/Temp{*}", "Temp*", ["a/b/Temp{*}", "a/b/T*", "a/b/Temp*"]),
        ("a/b/{/}", "/", ["a/**"]),
    ],
)
def test_a_slash_or_a_star_in_a_name_has_its_own_notation(point, name, fits):
    assert point_of(point) == point
    assert split(point) == ("a/b", name)
    assert Write(point).device == "a/b"
    for rule in fits:
        assert matches_point(point_pattern(rule), point), rule


def test_a_star_in_a_name_is_not_a_wildcard():
    assert not matches_point("a/b/Temp{*}", "a/b/Temperature")
    assert matches_point("a/b/Temp*", "a/b/Temperature")


def test_a_name_with_a_slash_counts_for_each_device_that_it_may_belong_to():
    assert device_keys("a/b/Zone{/}Temp") == {"a/b", "a/b/zone"}
    assert device_keys("a/b/Zone/Temp") == {"a/b/zone"}


def _command(point):
    return Command("c", "i", 1, 2, "SET", (Write(point, 1),))
