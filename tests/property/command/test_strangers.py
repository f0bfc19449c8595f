"""The cost of a flood of unknown issuers; forgetting their commands early permits none of them."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tieline_connectors.command.model.command import Defaults
from tieline_connectors.command.model.ledger import CommandLedger, Retention
from tieline_connectors.command.model.parsing import from_value
from tieline_connectors.command.policy.file import parse
from tieline_connectors.command.rules.arrival import MAX_UNAUTHORIZED, MAX_UNAUTHORIZED_SIZE, decide_arrival
from tieline_connectors.command.rules.decisions import Answer, Conditions, End, Now, RuleSettings

SECOND = 1_000_000
T0 = 1_800_000_000 * SECOND
TERMS = RuleSettings(max_age=300 * SECOND, max_clock_skew=10 * SECOND, built_at=T0 - 1)
RETENTION = Retention(30 * 86_400 * SECOND, 310 * SECOND)
RULE = "[{issuers: %s, points: a/p, type: float, min: 0, max: 9}]"
NOBODY, ALL = (parse("{version: 1, rules: %s}" % (RULE % who), "p.yaml") for who in ("boss", "'*'"))


def conditions(now, policy=NOBODY):
    return Conditions(Now(now, now - T0), TERMS, policy)


def command(name, issued, *, expires=None, reason=None):
    return from_value(
        {
            "command_id": name,
            "issuer": "stranger",
            "issued_at": issued,
            "expires_at": issued + 10**12 if expires is None else expires,
            "reason": reason,
            "action": "SET",
            "writes": [{"point": "a/p", "value": 1.0}],
        },
        Defaults(),
    )


@given(issued=st.integers(-299, 10), later=st.integers(0, 700))
def test_a_forgotten_command_of_an_unknown_issuer_is_never_executed_under_any_later_policy(issued, later):
    ledger = CommandLedger()
    sent = command("one", T0 + 1 + issued * SECOND)
    first = decide_arrival(sent, T0, ledger, conditions(T0 + 1))
    assert isinstance(first, End)
    ledger.put(first.entry)
    now = T0 + 1 + later * SECOND
    gone = ledger.removable(now, RETENTION)
    ledger.remove(gone, now)
    again = decide_arrival(sent, now // 1000 * 1000, ledger, conditions(now, ALL))
    if gone:
        assert isinstance(again, End)
        assert again.result.state == "EXPIRED"
    else:
        assert again == Answer(first.result, known=True)


def test_a_flood_of_unknown_issuers_keeps_few_small_entries_and_each_command_is_answered():
    ledger = CommandLedger()
    reported: Counter[str] = Counter()
    for number in range(5000):
        size = 900 if number % 2 else 0
        reason = "x" * size * (number % 7 == 0) or None
        decision = decide_arrival(
            command(f"c{number}", T0, reason=reason), T0, ledger, conditions(T0 + number * 1000)
        )
        assert isinstance(decision, End | Answer)
        assert (decision.result.state, decision.result.reason_code) == ("REJECTED", "NOT_ALLOWED")
        reported[type(decision).__name__] += 1
        if isinstance(decision, End):
            ledger.put(decision.entry)
    assert reported == {"End": MAX_UNAUTHORIZED, "Answer": 4000}
    assert sum(len(entry.command.to_json()) for entry in ledger) < MAX_UNAUTHORIZED * MAX_UNAUTHORIZED_SIZE
    now = T0 + 400 * SECOND
    ledger.remove(ledger.removable(now, RETENTION), now)
    assert (len(ledger), ledger.unauthorized) == (0, 0)


def test_a_large_command_of_an_unknown_issuer_is_answered_and_not_kept():
    decision = decide_arrival(command("large", T0, reason="é" * 400), T0, CommandLedger(), conditions(T0))
    assert isinstance(decision, Answer)
    assert not decision.known
