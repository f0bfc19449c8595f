from collections import Counter

from tieline_connectors.command.execution.counters import CommandCounters


def test_counters_that_only_grow_report_sums_and_maxima():
    counts: Counter[str] = Counter()

    def count(name, number):
        assert number >= 0
        counts[name] += number

    durations: list[tuple[str, float]] = []
    counters = CommandCounters(count, lambda *each: durations.append(each))
    for age in (2_000_000, 5_000_999, 3_000_000, -1):
        counters.executed(age)
    counters.called(0.0126)
    counters.called(0.0004)
    counters.ended("UNKNOWN")
    counters.circuits(2, 0)
    counters.circuits(0, 1)
    assert counts == {
        "executed": 4,
        "age.ms": 10_000,
        "age.ms.max": 5_000,
        "rpc.calls": 2,
        "rpc.ms": 13,
        "rpc.ms.max": 13,
        "ended.UNKNOWN": 1,
        "circuit.opened": 2,
        "circuit.closed": 1,
    }
    ages = [("age", 2.0), ("age", 5.000999), ("age", 3.0), ("age", -1e-06)]
    assert durations == [*ages, ("rpc", 0.0126), ("rpc", 0.0004)]
