from collections import Counter

from tieline_connectors.command.execution.counters import Measures


def test_sums_and_maxima_are_told_by_counters_that_only_grow():
    counters: Counter[str] = Counter()

    def count(name, number):
        assert number >= 0
        counters[name] += number

    measures = Measures(count)
    for age in (2_000_000, 5_000_999, 3_000_000, -1):
        measures.executed(age)
    measures.called(0.0126)
    measures.called(0.0004)
    measures.ended("UNKNOWN")
    measures.circuits(2, 0)
    measures.circuits(0, 1)
    assert counters == {
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
