"""The settings of the command sink, checked as a worker checks them, and under whose name it connects."""

import pytest

from tieline.api import ConfigError
from tieline.config.plan import check_plan
from tieline_connectors.command.config import CommandSinkConfig

SETTINGS = {"volttron.address": "tcp://127.0.0.1:22916", "platform.name": "lab"}


@pytest.fixture
def problems(tmp_path):
    (tmp_path / "policy.yaml").write_text("version: 1")
    files = {"policy.file": str(tmp_path / "policy.yaml"), "audit.file": str(tmp_path / "audit.log")}
    sink = {"name": "c", "connector.class": "command", "topics": "commands", **SETTINGS, **files}

    def of(**changes):
        settings = sink | {name.replace("_", "."): value for name, value in changes.items()}
        try:
            check_plan("worker", {"bootstrap.servers": "127.0.0.1:1"}, [("c", settings)])
        except ConfigError as error:
            return [(problem.key, problem.message) for problem in error.problems]
        return []

    return of


@pytest.mark.parametrize(
    ("claim", "session", "right"),
    [
        ("10000", None, True),
        ("22500", None, True),
        ("22501", None, False),
        ("3000", "6000", True),
        ("3001", "6000", False),
    ],
)
def test_a_claim_is_at_most_half_a_session_of_the_group(problems, claim, session, right):
    overrides = {} if session is None else {"consumer_override_session_timeout_ms": session}
    reported = problems(claim_ms=claim, **overrides)
    assert [key for key, _ in reported] == ([] if right else ["claim.ms"])
    if not right:
        half = int(session or 45_000) // 2
        assert f"make it at most {half}, or increase the session timeout" in reported[0][1]


def test_a_claim_that_is_too_long_is_reported_together_with_other_problems(problems):
    reported = problems(
        claim_ms="9000",
        consumer_override_session_timeout_ms="10000",
        ledger_retention_ms="1",
        results_old_topic="command-results",
        signature_keys="x",
    )
    assert [key for key, _ in reported] == [
        "ledger.retention.ms",
        "claim.ms",
        "results.old.topic",
        "signature.keys",
    ]


@pytest.mark.parametrize(
    ("identity", "names"),
    [
        ("", ["tieline.commands.0", "tieline.commands.1", "tieline.commands.2"]),
        ("me", ["me", "me-1", "me-2"]),
    ],
)
def test_each_task_connects_under_a_name_of_its_own(tmp_path, identity, names):
    files = {"policy.file": str(tmp_path / "p.yaml"), "audit.file": str(tmp_path / "a.log")}
    config = CommandSinkConfig.parse({**SETTINGS, **files, "volttron.identity": identity})
    assert [config.endpoint_of("commands", task).identity for task in range(3)] == names
    spare = config.endpoint_of("commands", 1).with_suffix(1).identity
    assert spare not in {config.endpoint_of("commands", task).identity for task in range(20)}


def test_a_rejection_of_an_unknown_issuer_is_kept_until_its_command_is_too_old(tmp_path):
    files = {"policy.file": str(tmp_path / "p.yaml"), "audit.file": str(tmp_path / "a.log")}
    times = {"max.age.ms": "60000", "max.clock.skew.ms": "7000", "ledger.retention.ms": "90000"}
    config = CommandSinkConfig.parse({**SETTINGS, **files, **times})
    assert config.retention() == (90_000_000, 67_000_000)
