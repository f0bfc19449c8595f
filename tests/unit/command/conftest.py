"""A command, its ledger and a situation, with whatever a test wants to be different."""

import json
from types import SimpleNamespace

import pytest

from tieline_connectors.command.model.command import Defaults
from tieline_connectors.command.model.parsing import from_value
from tieline_connectors.command.policy.file import parse
from tieline_connectors.command.rules.decisions import Conditions, Now, RuleSettings

SECOND = 1_000_000
MINUTE = 60 * SECOND
T0 = 1_800_000_000 * SECOND
POINT = "campus/b1/ahu1/CoolingSetpoint"
OTHER = "campus/b1/ahu1/HeatingSetpoint"
RULE = {"issuers": "*", "points": "**", "type": "float", "min": 0, "max": 100}


def value(**changes):
    return {
        "command_id": "c1",
        "issuer": "energy-manager",
        "issued_at": T0,
        "expires_at": T0 + MINUTE,
        "action": "SET",
        "writes": [{"point": POINT, "value": 21.5}],
        **changes,
    }


def command(**changes):
    return from_value(value(**changes), Defaults())


def policy(*rules, **rest):
    return parse(json.dumps({"version": 1, "rules": rules or [RULE], **rest}), "policy.json")


def conditions(seconds=0.0, *, monotonic=None, **changes):
    after = int(seconds * SECOND)
    settings = RuleSettings(max_age=3600 * SECOND, max_clock_skew=5 * SECOND, built_at=T0 - 86_400 * SECOND)
    now = Now(T0 + after, after if monotonic is None else int(monotonic * SECOND))
    return Conditions(now, changes.pop("settings", settings), changes.pop("policy", policy()), **changes)


@pytest.fixture(scope="session")
def given():
    return SimpleNamespace(
        SECOND=SECOND,
        MINUTE=MINUTE,
        T0=T0,
        POINT=POINT,
        OTHER=OTHER,
        RULE=RULE,
        value=value,
        command=command,
        policy=policy,
        conditions=conditions,
    )
