"""What a request may compute, and what it leaves to the others meanwhile."""

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

PATIENCE = 60  # seconds, of a machine that has much else to do


def record(name, *fields, **more):
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(name, kind):
    return {"name": name, "type": kind}


def many(number, kind="int", first=0):
    return record("R", *(field(f"f{n}", kind) for n in range(first, number)))


def symbols(first, number):
    return {"type": "enum", "name": "E", "symbols": [f"S{n}" for n in range(first, number)]}


def steps(*schemas):
    """How many steps it takes to read schemas and compare the first with the second, both ways."""
    spent = 0
    found = []
    with step_limit(LONG):
        left = current_budget()
        for schema in schemas:
            found.append(parse("AVRO", json.dumps(schema), {}))
        differences(found[0], found[1])
        differences(found[1], found[0])
        spent = LONG - left.steps
    return spent


def namespaced(number):
    """A union of records with one name; each reads only what it wrote itself."""
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
def test_what_is_compared_takes_time_in_proportion_to_its_length(make, size):
    once, ten_times = steps(*make(size)), steps(*make(10 * size))
    assert 0 < ten_times <= 11 * once


@pytest.mark.parametrize("size", [300])
def test_a_schema_against_itself_is_not_compared_at_all(size):
    schema = json.dumps([record(f"R{n}") for n in range(size)])
    with step_limit(LONG):
        one, other = parse("AVRO", schema, {}), parse("AVRO", f" {schema}", {})
        one.definition, other.definition  # noqa: B018
        before = current_budget().steps
        assert differences(one, other) == []
        assert current_budget().steps == before


def test_what_would_take_too_long_ends_with_the_budget_and_is_refused_with_a_code(log, monkeypatch):
    monkeypatch.setattr(slow_lane, "LONG", LONG // 20)  # the whole of it takes seconds
    topic = SchemaTopic(log)
    old, new = json.dumps(namespaced(500)), json.dumps(namespaced(500)[::-1])
    register(topic, "s", old)
    with pytest.raises(RegistryError, match="too complex to be checked") as caught:
        register(topic, "s", new)
    assert (caught.value.status, caught.value.code) == (422, 42209)
    topic.change(lambda state: config_and_mode.set_config(state, "s", {"compatibility": "NONE"}))
    assert register(topic, "s", new).number == 2  # as the message says


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
def test_a_value_inside_itself_is_no_schema(schema):
    with pytest.raises(ValueError, match="nested too deep"):
        parse("AVRO", json.dumps(schema), {})


def test_defaults_that_multiply_end_with_the_budget():
    inner = record("A0", {"name": "x", "type": "int", "default": 1})
    for n in range(1, 40):
        fields: list[Any] = [
            {"name": name, "type": kind, "default": {}} for name, kind in (("x", inner), ("y", f"A{n - 1}"))
        ]
        inner = record(f"A{n}", *fields)
    with step_limit(QUICK), pytest.raises(OverBudgetError):
        parse("AVRO", json.dumps(inner), {})


def test_a_long_namespace_that_thousands_inherit_ends_with_the_budget():
    inner = [field(f"f{n}", record(f"A{n}")) for n in range(5_000)]
    with step_limit(LONG), pytest.raises(OverBudgetError):
        parse("AVRO", json.dumps(record("R", *inner, namespace="n" * 400_000)), {})


def test_what_is_said_of_a_long_name_is_short():
    wrong = [
        {"name": f"f-{n}", "type": "int", "order": 7, "aliases": 3, "default": "x"} for n in range(2_000)
    ]
    found = parse("AVRO", json.dumps(record("R-" + "n" * 200_000, *wrong)), {}).problems
    assert len(found) > 2_000
    assert max(map(len, found)) < 1_000


@pytest.mark.parametrize("union", [["int"] * 90_000, [["int"]] * 10, [7] * 90_000])
def test_a_union_of_nothing_but_faults_is_read_in_no_time(union):
    with step_limit(LONG):
        before = current_budget().steps
        with contextlib.suppress(InvalidSchemaError):
            assert parse("AVRO", json.dumps(union), {}).problems == ("int is twice in a union",)
        assert before - current_budget().steps < LONG


@pytest.fixture
def log(tmp_path):
    opened = LocalLog.open(tmp_path)
    yield opened
    opened.close()


def register(topic, subject, text):
    asked = rules.SchemaRequest(Content("AVRO", text))
    return topic.change(lambda state: rules.register(state, subject, asked)).answer


def begun(target):
    thread = threading.Thread(target=target)
    thread.start()
    return thread


def test_while_a_question_takes_its_time_others_ask_and_write(log):
    topic = SchemaTopic(log)
    register(topic, "a", '"int"')
    reached, go_on = threading.Event(), threading.Event()
    answers = []

    def slow(state):
        reached.set()
        assert go_on.wait(PATIENCE)
        return [state.has("a"), state.has("b")]

    asking = begun(lambda: answers.append(topic.peek(slow)))
    assert reached.wait(PATIENCE)
    assert topic.ask(lambda state: state.has("a"))
    assert register(topic, "b", '"long"').id == 2
    go_on.set()
    asking.join(PATIENCE)
    assert answers == [[True, False]]  # of the state as it was when it was asked


def test_a_change_that_is_overtaken_by_another_is_decided_again_on_what_that_one_left(log):
    """It was decided on a state in which the subject had no version; the other one forbids it."""
    topic = SchemaTopic(log)
    reached, go_on = threading.Event(), threading.Event()
    asked = rules.SchemaRequest(Content("AVRO", '"string"'))
    refused = []

    def slow(state):
        if not reached.is_set():
            reached.set()
            assert go_on.wait(PATIENCE)
        return rules.register(state, "a", asked)

    def change():
        try:
            topic.change(slow)
        except RegistryError as error:
            refused.append(error.code)

    changing = begun(change)
    assert reached.wait(PATIENCE)
    register(topic, "a", '"int"')
    go_on.set()
    changing.join(PATIENCE)
    assert refused == [40901]


def test_what_takes_long_is_computed_one_at_a_time_and_too_many_are_refused():
    slow_lane = SlowLane()
    running: list[int] = []
    most: list[int] = []
    go_on = threading.Event()
    outcomes = []

    def long(number):
        current_budget().spend(QUICK + 1)
        running.append(number)
        most.append(len(running))
        assert go_on.wait(PATIENCE)
        running.remove(number)
        return number

    def ask(number):
        try:
            outcomes.append(slow_lane.answer(lambda: long(number)))
        except RegistryError as error:
            outcomes.append(error.status)

    threads = [begun(lambda number=number: ask(number)) for number in range(12)]
    refused = threading.Event()
    while len(outcomes) < 7:  # all but one that runs and four that wait
        refused.wait(0.01)
    assert slow_lane.answer(lambda: "small") == "small"
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(outcomes[:7]) == [503] * 7
    assert all(outcome < 12 for outcome in outcomes[7:])
    assert max(most) == 1


@contextlib.contextmanager
def counted(log, before):
    """The transactions on the registry's topic; ``before`` is called in each, once it is held."""
    found = []
    exclusive = log.exclusive

    @contextlib.contextmanager
    def hold(*args, **kwargs):
        with exclusive(*args, **kwargs) as held:
            before()
            found.append(held)
            yield held

    log.exclusive = hold
    yield found
    del log.exclusive


def test_fifty_schemas_that_wait_are_written_together_and_each_has_its_own_id(log):
    topic = SchemaTopic(log)
    register(topic, "first", '"int"')
    found = {}
    text = '{{"type":"fixed","name":"lab.F","size":{}}}'

    def one(number):
        found[number] = register(topic, f"s{number}", text.format(number)).id

    def until_all_wait():
        while topic.waiting_changes + len(found) < 50:
            threading.Event().wait(0.01)

    with counted(log, until_all_wait) as transactions:
        threads = [begun(lambda number=number: one(number)) for number in range(1, 51)]
        for thread in threads:
            thread.join(PATIENCE)
    assert sorted(found.values()) == list(range(2, 52))
    assert len(transactions) == 1
    again = SchemaTopic(log)
    again.catch_up()
    assert {n: again.snapshot().versions_of_id(found[n])[0].subject for n in found} == {
        n: f"s{n}" for n in found
    }


def test_a_broker_that_is_away_is_told_to_all_who_wait_at_once(log):
    topic = SchemaTopic(log)
    register(topic, "first", '"int"')
    outcomes = []

    def one(number):
        try:
            register(topic, f"s{number}", f'{{"type":"fixed","name":"F","size":{number}}}')
        except ConnectionError as error:
            outcomes.append(str(error))

    def fail_when_all_wait():
        while topic.waiting_changes < 10:
            threading.Event().wait(0.01)
        raise ConnectionError("away")

    with counted(log, fail_when_all_wait) as transactions:
        threads = [begun(lambda number=number: one(number)) for number in range(1, 11)]
        for thread in threads:
            thread.join(PATIENCE)
    assert (outcomes, transactions) == (["away"] * 10, [])


def test_a_change_that_is_refused_costs_those_that_it_was_written_with_nothing(log):
    topic = SchemaTopic(log)
    register(topic, "a", '"int"')
    outcomes = {}

    def one(subject, text):
        try:
            outcomes[subject, text] = register(topic, subject, text).number
        except RegistryError as error:
            outcomes[subject, text] = error.code

    asked = [("a", '"string"'), ("b", '"string"'), ("a", '"long"'), ("c", "{")]
    threads = [begun(lambda each=each: one(*each)) for each in asked]
    for thread in threads:
        thread.join(PATIENCE)
    assert outcomes == {("a", '"string"'): 40901, ("b", '"string"'): 1, ("a", '"long"'): 2, ("c", "{"): 42201}
