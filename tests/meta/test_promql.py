"""The reader of PromQL finds what an expression names, and refuses what it does not know."""

import pytest
from tests.meta.promql import Selector, parse


@pytest.mark.parametrize(
    ("expression", "metrics", "grouped"),
    [
        ("up", {"up": ""}, ""),
        ('rate(a_total{x="by",y=~"b{}"}[5m]) > 0.5', {"a_total": "xy"}, ""),
        ("sum by (x, y) (a) / on (z) group_left (w) b", {"a": "", "b": ""}, "xyzw"),
        ("sum(a) without (x)", {"a": ""}, "x"),
        ("increase(a[1d] offset 15m) > 0 and b unless c or d", {"a": "", "b": "", "c": "", "d": ""}, ""),
        ("time() - last_over_time(a[6h]) > 180", {"a": ""}, ""),
        ("histogram_quantile(0.99, sum by (l) (rate(h_bucket[15m])))", {"h_bucket": ""}, "l"),
        ("a:b:rate15m # c\n* 2", {"a:b:rate15m": ""}, ""),
    ],
)
def test_metrics_labels_and_groupings_are_found(expression, metrics, grouped):
    selectors, groups = parse(expression)
    assert selectors == [Selector(name, frozenset(labels)) for name, labels in metrics.items()]
    assert groups == set(grouped)


@pytest.mark.parametrize("expression", ['{job="x"}', "a @ 5", "a[5m:1m]!", 'a{x="', "a{x", "sum by (x a"])
def test_what_is_not_known_is_an_error(expression):
    with pytest.raises(ValueError, match=r"\w"):
        parse(expression)
