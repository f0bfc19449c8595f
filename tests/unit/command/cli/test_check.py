"""``tieline policy check`` and ``tieline command audit verify``."""

import json

import pytest
from typer.testing import CliRunner

from tieline.api import ConfigError
from tieline_connectors.command.audit.chain import head_of
from tieline_connectors.command.audit.file import AuditFile
from tieline_connectors.command.cli.app import command, policy

POINT = "campus/b1/ahu1/CoolingSetpoint"
POLICY = """
version: 1
rules:
  - issuers: "*"
    points: "**/FreezeStat"
    deny: never
  - issuers: energy-manager
    points: campus/*/ahu*/CoolingSetpoint
    type: float
    min: -10
    max: 26
    max_change: 2
    max_change_minutes: 15
    key: operators
"""


@pytest.fixture
def check(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)

    def check(*arguments):
        result = CliRunner().invoke(policy, ["check", str(tmp_path / "policy.yaml"), *arguments])
        return result.exit_code, result.stdout + result.stderr

    return check


def test_a_policy_without_problems_says_how_many_rules_it_has(check):
    status, reported = check()
    assert (status, reported.endswith("2 rules, no problems\n")) == (0, True)


def test_every_problem_of_a_policy_is_reported(tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        "version: 1\nrules:\n  - issuers: a\n    pionts: b\n  - points: devices/x\n    type: flot\n"
    )
    result = CliRunner().invoke(policy, ["check", str(wrong)])
    assert isinstance(result.exception, ConfigError)  # which the program prints, with exit status 2
    assert len(result.exception.problems) == 5


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["energy-manager", POINT, "22", "--signed-with", "operators"], 0, "allowed  by rule 2"),
        (["energy-manager", POINT, "-5", "--signed-with", "operators"], 0, "allowed  by rule 2"),
        (["energy-manager", POINT, "22"], 10, "SIGNATURE"),
        (["energy-manager", POINT, "27", "--signed-with", "operators"], 10, "POLICY_MAX"),
        (["energy-manager", POINT, "22", "--text", "--signed-with", "operators"], 10, "POLICY_TYPE"),
        (
            ["energy-manager", POINT, "24", "--signed-with", "operators", "--reads", "21"],
            10,
            "POLICY_MAX_CHANGE",
        ),
        (["energy-manager", POINT, "--revert", "--signed-with", "operators"], 0, "allowed"),
        (["energy-manager", "campus/b1/FreezeStat", "1"], 10, "never (rule 1)"),
        (["energy-manager", "devices/campus/b1/FREEZESTAT", "1"], 10, "never (rule 1)"),
        (["energy-manager", "devices/devices/campus/b1/FreezeStat", "1"], 2, "remove it"),
        (["somebody", POINT, "22"], 10, "NOT_ALLOWED"),
        (["energy-manager", POINT], 2, "ISSUER POINT VALUE"),
        (["energy-manager", "point", "22"], 2, "full path"),
        (["energy-manager", POINT, "22", "--priority", "3", "--signed-with", "operators"], 10, "PRIORITY"),
    ],
)
def test_whether_a_command_would_be_allowed_and_by_which_rule(check, arguments, status, says):
    ended, reported = check(*arguments)
    assert (ended, says in reported) == (status, True), reported


def test_check_judges_a_command_as_it_would_be_sent(check, tmp_path):
    file = tmp_path / "command.json"
    file.write_text(json.dumps({"issuer": "energy-manager", "writes": [{"point": POINT, "value": 5}]}))
    assert check("--command", str(file), "--signed-with", "operators")[0] == 0
    assert check("--command", str(file))[0] == 10


@pytest.fixture
def verify(tmp_path):
    log = tmp_path / "audit.log"
    file = AuditFile(log)
    for number in range(3):
        file.append(number, {"n": number})
    file.close()

    def verify(*arguments):
        result = CliRunner().invoke(command, ["audit", "verify", str(log), *arguments])
        return result.exit_code, result.stdout + result.stderr

    return log, verify


def test_verify_prints_the_head_of_a_complete_log(verify):
    log, verify = verify
    status, reported = verify()
    head = reported.split()[-1]
    assert (status, f"whole, 3 lines; its head is {head}" in reported) == (0, True)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]))
    log.with_name("audit.log.head").unlink()
    status, reported = verify()  # the missing end cannot be detected …
    assert (status, "no head beside it, so a missing end cannot be detected" in reported) == (0, True)
    assert verify("--head", head) == (
        1,
        f"{log}: line 3: the end is missing: the head names line 3, the log has 2\n",
    )


def test_verify_prints_how_much_of_a_missing_end_it_would_find(verify):
    log, verify = verify
    assert "proved" not in verify()[1]
    lines = log.read_bytes().splitlines(keepends=True)
    log.with_name("audit.log.head").write_bytes(head_of(lines[1]).to_line())
    assert "the head proves that no line up to 2 is missing\n" in verify()[1]
    log.write_bytes(lines[0])
    assert verify()[1].endswith("line 2: the end is missing: the head names line 2, the log has 1\n")


def test_a_line_that_was_changed_is_found(verify):
    log, verify = verify
    log.write_bytes(log.read_bytes().replace(b'"n":1', b'"n":7'))
    status, reported = verify()
    assert (status, "line 2: it was changed" in reported) == (1, True)


@pytest.mark.parametrize("head", ["", "3", "x:y", "3:abc"])
def test_an_invalid_head_is_reported(verify, head):
    assert verify[1]("--head", head) == (2, "--head is NUMBER:HASH, as this command prints it\n")


def test_a_missing_log_is_reported(verify):
    log, verify = verify
    log.unlink()
    assert verify() == (2, f"{log}: No such file or directory\n")


def test_a_log_that_was_moved_while_it_was_written_is_verified_with_what_continues_it(verify):
    log, verify = verify
    first = log.with_name("audit.log.1")
    writer = AuditFile(log)
    before = writer.head
    log.rename(first)
    writer.append(9, {"state": "SUCCEEDED"})
    writer.close()
    status, reported = verify()
    assert (status, f"continues another file, whose head was {before.seq}:{before.hash}" in reported) == (
        0,
        True,
    )

    def both():
        result = CliRunner().invoke(command, ["audit", "verify", str(first), str(log)])
        return result.exit_code, result.stdout + result.stderr

    status, reported = both()
    assert (status, f"whole, {before.seq + 2} lines" in reported, "continues" in reported) == (0, True, False)
    first.write_bytes(b"".join(first.read_bytes().splitlines(keepends=True)[:-1]))
    status, reported = both()
    assert (status, reported.startswith(f"{log}: line 1: it does not follow line {before.seq - 1}")) == (
        1,
        True,
    )
