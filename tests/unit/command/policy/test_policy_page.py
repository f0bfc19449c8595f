"""docs/reference/command-policy.md is true: its examples are loaded from the page and do what it says."""

import re
from pathlib import Path

import pytest

from tieline_connectors.command import rules
from tieline_connectors.command.model.facts import PolicyContext, Reading
from tieline_connectors.command.model.ledger import PastWrite
from tieline_connectors.command.model.streaks import Streak
from tieline_connectors.command.policy.file import parse
from tieline_connectors.command.policy.policy import Policy
from tieline_connectors.command.policy.rule import Limits, Rule

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "reference" / "command-policy.md").read_text("utf-8")
FIRST, SAFETY, OPTIMISER, SIGNED, NIGHT = (
    parse(text, "policy.yaml") for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
)
HOUR = {"hold_ms": 3_600_000, "reason": "peak"}
COOLING, MODE, FAN = (f"campus/b1/ahu1/{name}" for name in ("CoolingSetpoint", "Mode", "Fan"))


def code_of(refused):
    return None if refused is None else refused.code


class ThreeMinutesAgo:
    """One write of every point."""

    def __init__(self, now):
        self.now = now

    def writes(self, point, since):
        return [PastWrite(self.now - 180_000_000, "earlier", 24.0, 22.0)]

    def count_starts(self, since, *, issuer="", device=""):
        return 0

    def streak(self, device):
        return Streak()


@pytest.mark.parametrize(
    ("policy", "issuer", "point", "value", "rest", "code"),
    [
        (FIRST, "energy-manager", COOLING, 26, {}, None),
        (FIRST, "energy-manager", COOLING, 31, {}, "POLICY_MAX"),
        (FIRST, "energy-manager", COOLING, None, {"action": "REVERT"}, None),
        (FIRST, "somebody", COOLING, 20, {}, "NOT_ALLOWED"),
        (FIRST, "energy-manager", MODE, 20, {}, "NOT_ALLOWED"),
        (SAFETY, "operator-ann", "campus/b1/ahu1/Damper", 50, {}, None),
        (SAFETY, "operator-ann", "campus/b1/ahu1/FreezeStat", 50, {}, "POLICY_DENIED"),
        (SAFETY, "operator-ann", "campus/b1/AHU1/FreezeStat", 50, {}, "POLICY_DENIED"),
        (OPTIMISER, "optimiser", COOLING, 24, HOUR, None),
        (OPTIMISER, "optimiser", COOLING, 24.2, HOUR, "POLICY_STEP"),
        (OPTIMISER, "optimiser", COOLING, 25, HOUR, "POLICY_MAX_CHANGE"),
        (OPTIMISER, "optimiser", COOLING, 24, {"reason": "peak"}, "POLICY_HOLD"),
        (OPTIMISER, "optimiser", COOLING, 24, {"hold_ms": 5}, "POLICY_REASON"),
        (SIGNED, "operator-ann", MODE, "off", {"signed": True}, None),
        (SIGNED, "operator-ann", FAN, True, {"signed": True, "priority": 5}, None),
        (SIGNED, "operator-ann", MODE, "Off", {"signed": True}, "POLICY_VALUES"),
        (SIGNED, "operator-ann", FAN, 1, {"signed": True}, "POLICY_TYPE"),
        (SIGNED, "operator-ann", FAN, True, {"signed": True, "priority": 4}, "POLICY_PRIORITY"),
        (SIGNED, "operator-ann", MODE, "off", {}, "SIGNATURE"),
        (NIGHT, "night-watch", MODE, None, {"action": "REVERT"}, None),
        (NIGHT, "night-watch", MODE, "off", {}, "NOT_ALLOWED"),
    ],
)
def test_the_examples_do_what_the_page_says(given, policy, issuer, point, value, rest, code):
    signed = {"operators"} if rest.get("signed") else set()
    rest = {key: item for key, item in rest.items() if key != "signed"}
    command = given.command(issuer=issuer, writes=[{"point": point, "value": value}], **rest)
    facts = PolicyContext(given.T0, readings={point: Reading(22)}, signed_with=signed)
    refused = policy.rejection(command, facts)
    assert code_of(refused) == code
    if code == "POLICY_MAX":
        assert f"> {refused.reason}\n" in PAGE


def test_a_second_command_three_minutes_later_comes_too_early(given):
    command = given.command(issuer="optimiser", writes=[{"point": COOLING, "value": 24}], **HOUR)
    facts = PolicyContext(given.T0, ThreeMinutesAgo(given.T0), {COOLING: Reading(24.0)})
    assert code_of(OPTIMISER.rejection(command, facts)) == "POLICY_DWELL"


def test_the_file_of_examples_is_a_policy_and_allows_what_it_says(given):
    policy = parse((ROOT / "examples" / "policy.yaml").read_text("utf-8"), "policy.yaml")
    command = given.command(issuer="energy-manager", writes=[{"point": COOLING, "value": 24}], **HOUR)
    assert policy.rejection(command, PolicyContext(given.T0, readings={COOLING: Reading(22.0)})) is None
    other = command._replace(issuer="operator-ann")
    assert code_of(policy.rejection(other, PolicyContext(given.T0))) == "NOT_ALLOWED"


def keys_below(heading):
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    cells = re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)
    return {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}


def test_the_page_lists_exactly_the_keys_of_a_policy():
    assert keys_below("Keys of a rule") == set(Rule.model_fields)
    limits = {f"limits.{key}" for key in Limits.model_fields}
    assert keys_below("Keys beside the rules") == set(Policy.model_fields) - {"rules", "limits"} | limits


def test_the_pages_table_of_codes_matches_the_rules():
    rows = re.findall(r"^\| `[A-Z_]+` \|.*$", rules.__doc__, re.MULTILINE)
    assert len(rows) > 30
    assert re.findall(r"^\| `[A-Z_]+` \|.*$", PAGE, re.MULTILINE) == rows
