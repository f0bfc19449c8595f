"""What a request may compute, and that other requests continue meanwhile."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any

import pytest

from tieline.broker.local.log import LocalLog
from tieline.registry import slow_lane
from tieline.registry.model import config_and_mode, rules
from tieline.registry.model.avro_schema import InvalidSchemaError, parse
from tieline.registry.model.budget import LONG, QUICK, OverBudgetError, current_budget, step_limit
from tieline.registry.model.compatibility import differences
from tieline.registry.model.errors import RegistryError
from tieline.registry.model.events import Content
from tieline.registry.schema_topic import SchemaTopic
from tieline.registry.slow_lane import SlowLane

PATIENCE = 60  # seconds, for a busy machine


def record(name, *fields, **attributes):
    return {"type": "record", "name": name, "fields": list(fields), **attributes}


def field(name, kind):
    return {"name": name, "type": kind}


def many(number, kind="int", first=0):
    return record("R", *(field(f"f{n}", kind) for n in range(first, number)))


def symbols(first, number):
    return {"type": "enum", "name": "E", "symbols": [f"S{n}" for n in range(first, number)]}


def steps(*schemas):
    """Return how many steps it takes to parse schemas and compare the first two in both directions."""
    with step_limit(LONG):
        parsed = [parse("AVRO", json.dumps(schema), {}) for schema in schemas]
        differences(parsed[0], parsed[1])
        differences(parsed[1], parsed[0])
        return LONG - current_budget().steps


def namespaced(number):
    """Return a union of records with one name, of which each reads only its own data."""
    return [record("R", field(f"f{n}", "int"), namespace=f"n{n}") for n in range(number)]


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda n: ([record(f"R{i}") for i in range(n)], [record(f"R{i}") for i in reversed(range(n))]), 300),
        (lambda n: ([record(f"R{i}") for i in range(n)], [record(f"Q{i}") for i in range(n)]), 300),
        (lambda n: (symbols(0, n), symbols(1, n + 1)), 2000),
        (lambda n: (many(n), many(n, "long")), 1500),
        (lambda n: (many(n), many(n, first=1)), 1500),
    ],
    ids=["a union in another order", "a union of other names", "symbols", "fields", "missing fields"],
)
def test_comparing_takes_time_proportional_to_the_length(make, size):
    once, ten_times = steps(*make(size)), steps(*make(10 * size))
    assert 0 < ten_times <= 11 * once


@pytest.mark.parametrize("size", [300])
def test_a_schema_is_not_compared_with_itself(size):
    schema = json.dumps([record(f"R{n}") for n in range(size)])
    with step_limit(LONG):
        first, second = parse("AVRO", schema, {}), parse("AVRO", f" {schema}", {})
        first.definition, second.definition  # noqa: B018
        before = current_budget().steps
        assert differences(first, second) == []
        assert current_budget().steps == before


def test_a_comparison_that_exceeds_its_budget_is_rejected_with_a_code(log, monkeypatch):
    monkeypatch.setattr(slow_lane, "LONG", LONG // 20)  # since the full budget takes seconds
    topic = SchemaTopic(log)
    old, new = json.dumps(namespaced(500)), json.dumps(namespaced(500)[::-1])
    register(topic, "s", old)
    with pytest.raises(RegistryError, match="too complex to be checked") as caught:
        register(topic, "s", new)
    assert (caught.value.status, caught.value.code) == (422, 42209)
    topic.change(lambda state: config_and_mode.set_config(state, "s", {"compatibility": "NONE"}))
    assert register(topic, "s", new).number == 2  # as the message recommends


@pytest.mark.parametrize(
    "schema",
    [
        record("R", {"name": "f", "type": "R", "default": {}}),
        record(
            "R",
            {
                "name": "f",
                "type": {"type": "array", "items": "int"},
                "default": json.loads("[" * 400 + "]" * 400),
            },
        ),
    ],
)
def test_a_default_that_is_nested_too_deep_is_rejected(schema):
    with pytest.raises(ValueError, match="nested too deep"):
        parse("AVRO", json.dumps(schema), {})


def test_defaults_that_multiply_exceed_the_budget():
    inner = record("A0", {"name": "x", "type": "int", "default": 1})
    for n in range(1, 40):
        fields: list[Any] = [
            {"name": name, "type": kind, "default": {}} for name, kind in (("x", inner), ("y", f"A{n - 1}"))
        ]
        inner = record(f"A{n}", *fields)
    with step_limit(QUICK), pytest.raises(OverBudgetError):
        parse("AVRO", json.dumps(inner), {})


def test_a_long_namespace_that_thousands_of_types_inherit_exceeds_the_budget():
    inner = [field(f"f{n}", record(f"A{n}")) for n in range(5_000)]
    with step_limit(LONG), pytest.raises(OverBudgetError):
        parse("AVRO", json.dumps(record("R", *inner, namespace="n" * 400_000)), {})


def test_messages_about_long_names_are_short():
    wrong = [
        {"name": f"f-{n}", "type": "int", "order": 7, "aliases": 3, "default": "x"} for n in range(2_000)
    ]
    problems = parse("AVRO", json.dumps(record("R-" + "n" * 200_000, *wrong)), {}).problems
    assert len(problems) > 2_000
    assert max(map(len, problems)) < 1_000


@pytest.mark.parametrize("union", [["int"] * 90_000, [["int"]] * 10, [7] * 90_000])
def test_a_union_of_many_faulty_branches_stays_within_the_budget(union):
    with step_limit(LONG):
        before = current_budget().steps
        with contextlib.suppress(InvalidSchemaError):
            assert parse("AVRO", json.dumps(union), {}).problems == ("int is twice in a union",)
        assert before - current_budget().steps < LONG


@pytest.fixture
def log(tmp_path):
    log = LocalLog.open(tmp_path)
    yield log
    log.close()


def register(topic, subject, text):
    request = rules.SchemaRequest(Content("AVRO", text))
    return topic.change(lambda state: rules.register(state, subject, request)).answer


def start_thread(target):
    thread = threading.Thread(target=target)
    thread.start()
    return thread


def test_other_threads_ask_and_write_while_a_question_is_slow(log):
    topic = SchemaTopic(log)
    register(topic, "a", '"int"')
    reached, resume = threading.Event(), threading.Event()
    answers = []

    def slow(state):
        reached.set()
        assert resume.wait(PATIENCE)
        return [state.has("a"), state.has("b")]

    asking = start_thread(lambda: answers.append(topic.peek(slow)))
    assert reached.wait(PATIENCE)
    assert topic.ask(lambda state: state.has("a"))
    assert register(topic, "b", '"long"').id == 2
    resume.set()
    asking.join(PATIENCE)
    assert answers == [[True, False]]  # of the state at the time of the question


def test_a_change_is_decided_again_if_another_one_was_written_first(log):
    """It was decided when the subject had no version; the other change forbids it."""
    topic = SchemaTopic(log)
    reached, resume = threading.Event(), threading.Event()
    request = rules.SchemaRequest(Content("AVRO", '"string"'))
    codes = []

    def slow(state):
        if not reached.is_set():
            reached.set()
            assert resume.wait(PATIENCE)
        return rules.register(state, "a", request)

    def change():
        try:
            topic.change(slow)
        except RegistryError as error:
            codes.append(error.code)

    changing = start_thread(change)
    assert reached.wait(PATIENCE)
    register(topic, "a", '"int"')
    resume.set()
    changing.join(PATIENCE)
    assert codes == [40901]


def test_slow_questions_run_one_at_a_time_and_too_many_are_refused():
    slow_lane = SlowLane()
    running: list[int] = []
    most: list[int] = []
    resume = threading.Event()
    outcomes = []

    def long(number):
        current_budget().spend(QUICK + 1)
        running.append(number)
        most.append(len(running))
        assert resume.wait(PATIENCE)
        running.remove(number)
        return number

    def ask(number):
        try:
            outcomes.append(slow_lane.answer(lambda: long(number)))
        except RegistryError as error:
            outcomes.append(error.status)

    threads = [start_thread(lambda number=number: ask(number)) for number in range(12)]
    refused = threading.Event()
    while len(outcomes) < 7:  # all except one that runs and four that wait
        refused.wait(0.01)
    assert slow_lane.answer(lambda: "small") == "small"
    resume.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(outcomes[:7]) == [503] * 7
    assert all(outcome < 12 for outcome in outcomes[7:])
    assert max(most) == 1


@contextlib.contextmanager
def count_transactions(log, before):
    """Collect the transactions on the registry's topic; ``before`` is called in each, once it is held."""
    transactions = []
    exclusive = log.exclusive

    @contextlib.contextmanager
    def hold(*args, **kwargs):
        with exclusive(*args, **kwargs) as held:
            before()
            transactions.append(held)
            yield held

    log.exclusive = hold
    yield transactions
    del log.exclusive


def test_fifty_waiting_schemas_are_written_together_and_each_has_its_own_id(log):
    topic = SchemaTopic(log)
    register(topic, "first", '"int"')
    ids = {}
    text = '{{"type":"fixed","name":"lab.F","size":{}}}'

    def change(number):
        ids[number] = register(topic, f"s{number}", text.format(number)).id

    def until_all_wait():
        while topic.waiting_changes + len(ids) < 50:
            threading.Event().wait(0.01)

    with count_transactions(log, until_all_wait) as transactions:
        threads = [start_thread(lambda number=number: change(number)) for number in range(1, 51)]
        for thread in threads:
            thread.join(PATIENCE)
    assert sorted(ids.values()) == list(range(2, 52))
    assert len(transactions) == 1
    again = SchemaTopic(log)
    again.catch_up()
    assert {n: again.snapshot().versions_of_id(ids[n])[0].subject for n in ids} == {n: f"s{n}" for n in ids}


def test_every_waiting_change_fails_at_once_if_the_broker_is_unavailable(log):
    topic = SchemaTopic(log)
    register(topic, "first", '"int"')
    outcomes = []

    def change(number):
        try:
            register(topic, f"s{number}", f'{{"type":"fixed","name":"F","size":{number}}}')
        except ConnectionError as error:
            outcomes.append(str(error))

    def fail_when_all_wait():
        while topic.waiting_changes < 10:
            threading.Event().wait(0.01)
        raise ConnectionError("unavailable")

    with count_transactions(log, fail_when_all_wait) as transactions:
        threads = [start_thread(lambda number=number: change(number)) for number in range(1, 11)]
        for thread in threads:
            thread.join(PATIENCE)
    assert (outcomes, transactions) == (["unavailable"] * 10, [])


def test_a_rejected_change_does_not_affect_those_in_the_same_transaction(log):
    topic = SchemaTopic(log)
    register(topic, "a", '"int"')
    outcomes = {}

    def change(subject, text):
        try:
            outcomes[subject, text] = register(topic, subject, text).number
        except RegistryError as error:
            outcomes[subject, text] = error.code

    changes = [("a", '"string"'), ("b", '"string"'), ("a", '"long"'), ("c", "{")]
    threads = [start_thread(lambda each=each: change(*each)) for each in changes]
    for thread in threads:
        thread.join(PATIENCE)
    assert outcomes == {("a", '"string"'): 40901, ("b", '"string"'): 1, ("a", '"long"'): 2, ("c", "{"): 42201}
