import json

import pytest

from tieline.api import ConfigError
from tieline_connectors.command.model.command import Defaults
from tieline_connectors.command.model.facts import PolicyContext, Reading, reading_of
from tieline_connectors.command.model.ledger import PastWrite
from tieline_connectors.command.model.parsing import from_value
from tieline_connectors.command.model.streaks import Streak
from tieline_connectors.command.policy.file import MAX_CHARACTERS, parse
from tieline_connectors.command.policy.patterns import matches_name, matches_point


class Before:
    """What was written: at (seconds before now), value, what the point was before that."""

    def __init__(self, now, *writes, starts=()):
        self.now, self.past, self.started = now, writes, starts

    def writes(self, point, since):
        writes = []
        for ago, value, previous in self.past:
            time = self.now - ago * 1_000_000
            writes.append(PastWrite(time, "earlier", value, previous))
            if time < since:
                break
        return writes

    def count_starts(self, since, *, issuer="", device=""):
        key = device or issuer
        return sum(time > since for time, of in self.started if of == key)

    def streak(self, device):
        return Streak()


@pytest.fixture
def refusal(given):
    """The refusal of a command by one rule with these keys."""

    def of(rule, change=None, *, facts=None, **rest):
        policy = given.policy({**given.RULE, **rule}, **rest)
        return policy.rejection(given.command(**(change or {})), facts or PolicyContext(given.T0))

    return of


def written(value, point="campus/b1/ahu1/CoolingSetpoint"):
    return {"writes": [{"point": point, "value": value}]}


def test_an_empty_policy_allows_nothing(given):
    refused = parse("version: 1", "p.yaml").rejection(given.command(), PolicyContext(given.T0))
    assert refused == (
        "NOT_ALLOWED",
        "no rule allows energy-manager to SET campus/b1/ahu1/CoolingSetpoint",
        given.POINT,
    )


@pytest.mark.parametrize(
    ("rule", "change", "code", "reported"),
    [
        ({"issuers": "operator"}, {}, "NOT_ALLOWED", "no rule allows energy-manager to SET"),
        ({"points": "campus/b2/**"}, {}, "NOT_ALLOWED", "no rule allows"),
        ({"actions": ["SET"]}, {"action": "REVERT", **written(None)}, "NOT_ALLOWED", "to REVERT"),
        ({"actions": ["SET"]}, written(None), "NOT_ALLOWED", "to REVERT"),
        ({"key": "ops"}, {}, "SIGNATURE", "needs a signature with the key ops (rule 1)"),
        (
            {},
            {"priority": 7},
            "POLICY_PRIORITY",
            "may be written at priority 8 to 16 by energy-manager, not 7",
        ),
        ({"highest_priority": 10}, {"priority": 9}, "POLICY_PRIORITY", "at priority 10 to 16"),
        ({"reason_required": True}, {}, "POLICY_REASON", "is written only with a reason (rule 1)"),
        (
            {"max_hold_minutes": 60, "hold_required": True},
            {},
            "POLICY_HOLD",
            "only with a hold (hold_ms), 60 minutes",
        ),
        (
            {"max_hold_minutes": 60},
            {"hold_ms": 3_600_001},
            "POLICY_HOLD",
            "may be held 60 minutes at most, not 60",
        ),
        ({}, written("x"), "POLICY_TYPE", "is a number, not 'x'"),
        ({}, written(True), "POLICY_TYPE", "is a number, not true"),
        ({"type": "int"}, written(1.0), "POLICY_TYPE", "is a whole number, not 1"),
        ({"type": "int"}, written(True), "POLICY_TYPE", "is a whole number, not true"),
        (
            {"min": 18, "max": 26},
            written(31),
            "POLICY_MAX",
            "may be 18 to 26 for energy-manager, not 31 (rule 1)",
        ),
        (
            {"min": 18, "max": 26},
            written(17.9),
            "POLICY_MIN",
            "may be 18 to 26 for energy-manager, not 17.9 (rule 1)",
        ),
        ({"min": 18, "max": 26}, written(26.000001), "POLICY_MAX", "not 26.000001"),
        ({"step": 0.5}, written(21.7), "POLICY_STEP", "goes in steps of 0.5, and 21.7 is not one of them"),
        ({"min": 0.25, "step": 0.5}, written(21.5), "POLICY_STEP", "in steps of 0.5 from 0.25, and 21.5"),
        ({"values": [1, 2.5]}, written(2), "POLICY_VALUES", "may be 1, 2.5 for energy-manager, not 2"),
    ],
)
def test_each_limit_refuses_with_its_code_and_a_sentence_that_names_the_point(
    refusal, given, rule, change, code, reported
):
    refused = refusal(rule, change)
    assert (refused.code, refused.point) == (code, given.POINT)
    assert reported in refused.reason
    assert given.POINT in refused.reason


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ({}, {}),
        ({"issuers": ["operator", "energy-*"]}, {}),
        ({"points": "campus/*/ahu1/Cool*"}, {}),
        ({"points": "CAMPUS/**"}, {}),
        (
            {"actions": "REVERT", "type": None, "min": None, "max": None},
            {"action": "REVERT", **written(None)},
        ),
        ({}, {"priority": 8}),
        ({"highest_priority": 5}, {"priority": 5}),
        ({"reason_required": True}, {"reason": "peak"}),
        ({"max_hold_minutes": 60, "hold_required": True}, {"hold_ms": 3_600_000}),
        ({"max_hold_minutes": 60, "hold_required": True}, written(None)),
        ({"min": 18, "max": 26}, written(18)),
        ({"min": 18, "max": 26}, written(26.0)),
        ({"step": 0.1}, written(20.1)),
        ({"step": 0.1, "max": 1e300}, written(1e300)),
        ({"type": "int"}, written(7)),
        ({"values": [1, 2.5]}, written(1.0)),
    ],
)
def test_a_write_within_every_limit_is_allowed(refusal, given, rule, change):
    rule = {key: value for key, value in {**given.RULE, **rule}.items() if value is not None}
    assert given.policy(rule).rejection(given.command(**change), PolicyContext(given.T0)) is None


@pytest.mark.parametrize(
    ("rule", "value", "code"),
    [
        ({"type": "bool"}, True, None),
        ({"type": "bool"}, 1, "POLICY_TYPE"),
        ({"type": "bool", "values": [False]}, True, "POLICY_VALUES"),
        ({"type": "text", "values": ["Auto", "off"]}, "off", None),
        ({"type": "text", "values": ["Auto", "off"]}, "Off", "POLICY_VALUES"),
        ({"type": "text", "max_length": 3}, "abc", None),
        ({"type": "text", "max_length": 3}, "abcd", "POLICY_VALUES"),
        ({"type": "text", "max_length": 3}, 7, "POLICY_TYPE"),
    ],
)
def test_limits_apply_to_booleans_and_texts(given, rule, value, code):
    policy = given.policy({"issuers": "*", "points": "**", **rule})
    refused = policy.rejection(given.command(**written(value)), PolicyContext(given.T0))
    assert (refused and refused.code) == code


def test_the_first_matching_rule_decides(given):
    safe = {
        "issuers": "*",
        "points": "campus/b1/ahu1/Freeze*",
        "deny": "freeze protection is nobody's business",
    }
    policy = given.policy(safe, {**given.RULE, "max": 22}, given.RULE)
    facts = PolicyContext(given.T0)
    refused = policy.rejection(given.command(**written(1, "campus/b1/AHU1/FreezeStat")), facts)
    assert refused.code == "POLICY_DENIED"
    assert "freeze protection is nobody's business (rule 1)" in refused.reason
    assert policy.rejection(given.command(**written(30)), facts).reason.endswith("not 30 (rule 2)")


def test_one_forbidden_write_rejects_the_whole_command(given):
    writes = [{"point": given.POINT, "value": 20}, {"point": given.OTHER, "value": 200}]
    refused = given.policy().rejection(given.command(writes=writes), PolicyContext(given.T0))
    assert (refused.code, refused.point) == ("POLICY_MAX", given.OTHER)


def test_an_unsigned_command_reveals_none_of_the_limits(given):
    policy = given.policy({**given.RULE, "key": "ops"})
    assert policy.rejection(given.command(**written(999)), PolicyContext(given.T0)).code == "SIGNATURE"
    assert policy.rejection(given.command(**written(9)), PolicyContext(given.T0, signed_with={"ops"})) is None
    assert (
        policy.rejection(given.command(**written(999)), PolicyContext(given.T0, signed_with={"ops"})).code
        == "POLICY_MAX"
    )


@pytest.mark.parametrize(("ago", "code"), [(299, "POLICY_DWELL"), (300, None), (9999, None)])
def test_a_point_is_not_written_again_within_its_dwell_time(refusal, given, ago, code):
    facts = PolicyContext(given.T0, Before(given.T0, (ago, 20.0, None)))
    refused = refusal({"dwell_minutes": 5}, facts=facts)
    assert (refused and refused.code) == code
    if refused:
        assert "was written less than 5 minutes ago; try again in 1 s" in refused.reason


@pytest.mark.parametrize(
    ("before", "value", "code"),
    [
        ([(60, 20.0, None)], 22, None),
        ([(60, 20.0, None)], 22.1, "POLICY_MAX_CHANGE"),
        ([(60, 20.0, None)], 17.9, "POLICY_MAX_CHANGE"),
        ([(60, 21.0, 18.0)], 21.5, "POLICY_MAX_CHANGE"),  # what it was before that write counts too
        ([(60, 22.0, None), (120, 20.0, None)], 23, "POLICY_MAX_CHANGE"),  # many small steps do not add up
        ([(60, 22.0, None), (901, 20.0, None)], 23, "POLICY_MAX_CHANGE"),  # in force when the time began
        ([(901, 23.0, None), (902, 10.0, None)], 23, None),
        ([(901, 23.0, 10.0)], 23, None),
        ([(60, None, None)], 99, None),
        ([], 99, None),
    ],
)
def test_a_point_changes_at_most_by_its_limit_within_its_period(refusal, given, before, value, code):
    facts = PolicyContext(given.T0, Before(given.T0, *before))
    refused = refusal({"max_change": 2, "max_change_minutes": 15}, written(value), facts=facts)
    assert (refused and refused.code) == code


@pytest.mark.parametrize(
    ("reading", "reported"),
    [
        (Reading(19.5), None),
        (Reading(19), "may change by 2 in 15 minutes; it was 19, and 21.5 is too far (rule 1)"),
        (None, "its value now cannot be read"),
        (Reading("x"), "its value now cannot be read"),
        (Reading(True), "its value now cannot be read"),
    ],
)
def test_before_the_write_the_change_is_measured_from_what_is_read(refusal, given, reading, reported):
    facts = PolicyContext(given.T0, readings={given.POINT: reading})
    refused = refusal({"max_change": 2, "max_change_minutes": 15}, facts=facts)
    assert refused is None if reported is None else reported in refused.reason


@pytest.mark.parametrize(
    ("limit", "of", "reported"),
    [
        ("per_device", "campus/b1/ahu1", "at most 2 commands in 10 minutes on campus/b1/ahu1 are allowed"),
        ("per_issuer", "energy-manager", "at most 2 commands in 10 minutes of energy-manager are allowed"),
        ("total", "", "at most 2 commands in 10 minutes in all are allowed"),
    ],
)
def test_the_number_of_commands_in_a_period_is_limited(given, limit, of, reported):
    policy = given.policy(limits={limit: {"commands": 2, "minutes": 10}})
    now = given.T0
    inside, outside = (now - 1, of), (now - 600_000_000, of)
    full, free = Before(now, starts=[inside, inside]), Before(now, starts=[inside, outside, (now, "another")])
    refused = policy.rejection(given.command(), PolicyContext(now, full))
    assert refused == ("RATE_LIMIT", reported, "")
    assert policy.rejection(given.command(), PolicyContext(now, free)) is None


@pytest.mark.parametrize(
    ("pattern", "point", "fits"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/*", "a/b", True),
        ("a/*", "a/b/c", False),
        ("*/*", "a/b", True),
        ("**", "a/b/c", True),
        ("a/**", "a/b/c", True),
        ("a/**", "a", True),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/**/z", "a/b/c/y", False),
        ("**/b/**", "a/b/c", True),
        ("a/ahu*", "a/ahu1", True),
        ("a/ahu*x", "a/ahu1", False),
        ("a/*h*1", "a/ahu1", True),
        ("a/x*x", "a/x", False),
        ("A/B", "a/b", True),
        ("a/b", "A/B", True),
        ("a.b/c", "axb/c", False),
        ("a/[b]", "a/b", False),
    ],
)
def test_patterns_of_points(pattern, point, fits):
    assert matches_point(pattern, point) is fits


def test_patterns_of_issuers_know_capitals():
    assert matches_name("energy-*", "energy-manager")
    assert not matches_name("Energy-*", "energy-manager")


def test_no_pattern_takes_long():
    assert not matches_point("/".join(["**", "*a*a*a*a*b"] * 9), "/".join(["a" * 50] * 20))


GOOD = {"issuers": ["x"], "points": ["a/b"], "type": "float", "min": 0, "max": 1}


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({"type": None}, "rule 1: type: is required with the action SET"),
        ({"min": None}, "rule 1: min: and max are both required for a number (or values)"),
        ({"min": 2}, "rule 1: min: is greater than max"),
        ({"type": "bool", "min": None}, "rule 1: max: is for numbers, and the type is bool"),
        ({"type": "text", "min": None, "max": None}, "rule 1: values: or max_length is required for a text"),
        ({"max_length": 5}, "rule 1: max_length: is for texts"),
        ({"max_tolerance": -1}, "rule 1: max_tolerance: input should be greater than or equal to 0"),
        (
            {"type": "text", "min": None, "max": None, "max_length": 5, "max_tolerance": 1},
            "rule 1: max_tolerance: is for numbers",
        ),
        ({"values": [1, "x"]}, "rule 1: values: are not all of the type float"),
        ({"values": [1], "step": 1}, "rule 1: step: has no meaning beside values"),
        ({"values": [[1]]}, "a value must be true, false, a number or a text"),
        ({"max_change": 5}, "rule 1: max_change: and max_change_minutes need each other"),
        ({"hold_required": True}, "rule 1: max_hold_minutes: is required with hold_required"),
        ({"deny": "no"}, "rule 1: max: has no meaning beside deny"),
        ({"actions": ["REVERT"]}, "rule 1: min: has no meaning without the action SET"),
        ({"actions": ["DELETE"]}, "rule 1: actions: input should be 'SET' or 'REVERT'"),
        ({"issuers": []}, "rule 1: issuers"),
        ({"points": ["devices/devices/a/b"]}, "platforms differ in how they read devices/"),
        ({"points": ["Devices/a/b"]}, "platforms differ in how they read Devices/"),
        ({"points": ["lonely"]}, "a pattern must be a full path"),
        ({"points": ["*"]}, "a pattern must be a full path"),
        ({"points": ["/".join("a" * 21)]}, "a pattern must be a full path"),
        ({"points": ["a/b "]}, "a segment with white space at its ends"),
        ({"points": ["a/../b"]}, "a segment . or .."),
        ({"points": ["a{/}b/c"]}, "{/} is allowed in the name of a point"),
        ({"points": ["a/b\u200bc"]}, "U+200B is invisible"),
        ({"points": ["a/b**"]}, "** must be a whole segment"),
        ({"points": ["a//b"]}, "has an empty segment"),
        ({"highest_priority": 0}, "rule 1: highest_priority: input should be greater than or equal to 1"),
        ({"min": True}, "rule 1: min: input should be a valid number"),
        ({"min": "0"}, "rule 1: min: input should be a valid number"),
        ({"dwell_minutes": 0}, "rule 1: dwell_minutes: input should be greater than 0"),
        ({"dwel_minutes": 5}, "rule 1: dwel_minutes: unknown key; did you mean 'dwell_minutes'?"),
        ({"wings": 5}, "rule 1: wings: unknown key; known here: issuers, points, actions"),
    ],
)
def test_a_problem_in_a_rule_is_reported_with_its_place_and_the_fix(changes, reported):
    rule = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises(ConfigError) as caught:
        parse(json.dumps({"version": 1, "rules": [rule]}), "p.json")
    assert reported in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("rules: []", "version: is required"),
        ("version: 2", "version: input should be 1"),
        ("version: 1\nrule: []", "rule: unknown key; did you mean 'rules'?"),
        ("version: 1\nlimits: {per_hour: {commands: 1, minutes: 1}}", "limits: per_hour: unknown key"),
        ("version: 1\nlimits: {total: {commands: 1}}", "limits.total: minutes: is required"),
        ("version: 1\nversion: 1", "version: duplicate key (line 2, first in line 1)"),
        ("version: &a 1", "anchors and aliases are refused (line 1, column 10)"),
        ("version: !!python/object:os.system 1", "tags are refused"),
        ("version: " + "[" * 30 + "]" * 30, "nested too deep"),
        ("1: 1", "a key is text"),
        ("- 1", "is not a map"),
        ("", "is not a map"),
        ("version: [", "cannot be read"),
        ("x" * (MAX_CHARACTERS + 1), "is longer than 1048576 characters"),
        ("version: 1\nrules:\n  - 7", "rule 1"),
        ("version: 1\nrules: 7", "rules"),
    ],
)
def test_a_problem_in_the_file_is_reported_with_its_place_and_the_fix(text, reported):
    with pytest.raises(ConfigError) as caught:
        parse(text, "p.yaml")
    assert reported in str(caught.value)


@pytest.mark.parametrize(
    "text", ['{"version": 1, "version": 1}', "[" * 2000, '{"version": NaN}', '{"version": 1']
)
def test_hostile_json_is_refused(text):
    with pytest.raises(ConfigError):
        parse(text, "p.json")


def test_a_duplicate_key_does_not_hide_the_rest_of_a_policy():
    with pytest.raises(ConfigError) as caught:
        parse("version: 1\nrules:\n  - {points: a/b, points: a/c}\nversion: 2", "p.yaml")
    assert {problem.key for problem in caught.value.problems} >= {"points", "version", "rule 1: issuers"}


def test_all_problems_are_reported_together():
    text = """
version: 1
limits: {total: {commands: 0, minutes: 1}}
rules:
  - {issuer: x, points: [devices/a], type: float}
  - {issuers: x, points: a/b, type: float}
"""
    with pytest.raises(ConfigError) as caught:
        parse(text, "p.yaml")
    assert [(problem.where, problem.key) for problem in caught.value.problems] == [
        ("p.yaml", "limits.total: commands"),
        ("p.yaml", "rule 1: issuers"),
        ("p.yaml", "rule 1: issuer"),
        ("p.yaml", "rule 1: points"),
        ("p.yaml", "rule 2: min"),
    ]


def test_on_and_off_are_texts_in_a_policy(given):
    text = (
        "version: 1\nrules:\n  - {issuers: '*', points: '**', type: text, values: [on, off, 12:30, 007, ~a]}"
    )
    assert parse(text, "p.yaml").rules[0].values == ("on", "off", "12:30", "007", "~a")


@pytest.mark.parametrize(
    ("answer", "reading"),
    [
        (1, Reading(1)),
        (1.5, Reading(1.5)),
        (None, Reading(None)),
        ("x", Reading("x")),
        (True, Reading(True)),
        (float("nan"), None),
        (2**63, None),
        ([1], None),
        ({}, None),
        ("x" * 10_001, None),
    ],
)
def test_an_answer_of_the_platform_is_a_reading_or_none(answer, reading):
    assert reading_of(answer) == reading


@pytest.mark.parametrize(
    ("rule", "change", "code"),
    [
        ({}, {}, None),
        ({}, {"tolerance": 0}, None),
        ({}, {"tolerance": 1e-9}, "POLICY_TOLERANCE"),
        ({"max_tolerance": 0.5}, {"tolerance": 0.5}, None),
        ({"max_tolerance": 0.5}, {"tolerance": 1e299}, "POLICY_TOLERANCE"),
        ({}, {"tolerance": 5, "action": "REVERT", **written(None)}, None),
        ({"type": "text", "max_length": 9}, {"tolerance": 5, **written("auto")}, None),
    ],
)
def test_the_tolerance_that_an_issuer_may_request_has_an_upper_limit(given, rule, change, code):
    base = {} if rule.get("type") == "text" else {"min": 0, "max": 100}
    policy = given.policy({"issuers": "*", "points": "**", "type": "float", **base, **rule})
    refused = policy.rejection(given.command(**change), PolicyContext(given.T0))
    assert (refused and refused.code) == code


def test_the_tolerance_in_the_sinks_settings_has_no_upper_limit(given):
    command = from_value(given.value(), Defaults(tolerance=7.0))
    assert given.policy(given.RULE).rejection(command, PolicyContext(given.T0)) is None
    configured = from_value(given.value(tolerance=7.0), Defaults(tolerance=7.0))
    refused = given.policy(given.RULE).rejection(configured, PolicyContext(given.T0))
    assert refused.reason == f"{given.POINT} is read back with a tolerance of 0 at most, not 7 (rule 1)"
