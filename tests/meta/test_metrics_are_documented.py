"""The reference has each metric with its type, labels and meaning."""

from __future__ import annotations

import pytest
from docs_generator import metrics
from tests.meta.monitoring import ROOT

from tieline.metrics.definitions import DEFINITIONS, GROUPS

PAGE = metrics.insert((ROOT / "docs" / "reference" / "metrics.md").read_text("utf-8"))
ALL = [*DEFINITIONS.values(), *metrics.of_plugins()]


@pytest.mark.parametrize("definition", ALL, ids=lambda definition: definition.name)
def test_the_reference_has_each_metric_with_its_meaning(definition):
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{definition.name}` |")]
    assert definition.kind in row
    assert definition.help in row
    assert definition.help
    assert all(f"`{label}`" in row for label in definition.labels)
    assert "|" not in definition.help


def test_each_group_is_on_the_page_and_plugins_have_metrics_too():
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text("utf-8")
    assert {marker["group"] for marker in metrics.MARKER.finditer(text)} == {*GROUPS, "plugins"}
    assert "tieline_command_ended_total" in {each.name for each in metrics.of_plugins()}
