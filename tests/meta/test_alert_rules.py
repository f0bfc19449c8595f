"""The rules and the dashboard that are shipped: names, labels, layout, and what promtool says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from docs_generator.metrics import of_plugins
from tests.meta.monitoring import CASES, DASHBOARD, ROOT, RULES, expressions, panels, recorded, rules
from tests.meta.promql import parse

from tieline.metrics.definition import Definition
from tieline.metrics.definitions import DEFINITIONS

PAGE = (ROOT / "docs" / "how-to" / "monitor.md").read_text("utf-8")
EXPRESSIONS = list(expressions())
ALERTS = [rule for rule in rules() if "alert" in rule]
OF_PROMETHEUS = {"job", "instance"}


def definition_of(name: str) -> Definition:
    known = {**DEFINITIONS, **{each.name: each for each in of_plugins()}}
    if name.endswith("_bucket"):
        histogram = known[name.removesuffix("_bucket")]
        assert histogram.kind == "histogram"
        return histogram._replace(labels=(*histogram.labels, "le"))
    return known[name]


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_each_expression_names_metrics_and_labels_that_exist(where, expression):
    selectors, grouped = parse(expression)
    assert selectors
    labels = set(OF_PROMETHEUS)
    for metric, matched in selectors:
        if metric in recorded():
            labels |= {"connector"}
            continue
        own = {*definition_of(metric).labels, *OF_PROMETHEUS}
        assert matched <= own, metric
        labels |= own
    assert grouped <= labels


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_has_a_severity_a_text_and_a_paragraph_that_says_what_to_do(alert):
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert set(alert["annotations"]) == {"summary", "description"}
    paragraph = PAGE.partition(f"### {alert['alert']}\n")[2].partition("\n#")[0]
    assert len(paragraph.split()) >= 10
    used = {name for text in alert["annotations"].values() for name in re.findall(r"\$labels\.(\w+)", text)}
    metrics = [metric for metric, _ in parse(alert["expr"])[0]]
    for metric in metrics[:1]:
        known = {"connector"} if metric in recorded() else set(definition_of(metric).labels)
        assert used <= known | OF_PROMETHEUS


def test_the_page_has_no_paragraph_about_an_alert_that_does_not_exist():
    assert re.findall(r"^### (Tieline\w+)$", PAGE, re.MULTILINE) == [alert["alert"] for alert in ALERTS]


def test_each_alert_has_a_case_in_which_it_fires():
    cases = CASES.read_text("utf-8")
    assert [alert["alert"] for alert in ALERTS if f'alertname="{alert["alert"]}"' not in cases] == []


def test_no_alert_ends_because_a_series_begins_late():
    """An increase from nothing is none: what an alert counts must be exported as 0 from the start."""
    counted = {
        metric
        for _, expression in EXPRESSIONS[: len(rules())]
        for metric in re.findall(r"(?:increase|rate)\((\w+)", expression)
    }
    labels = {metric: set(definition_of(metric).labels) - {"connector", "type", "task"} for metric in counted}
    assert {metric for metric, others in labels.items() if others} == set()
    assert len(counted) >= 5


def test_the_panels_of_the_dashboard_do_not_overlap_and_have_different_ids():
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids)) > 25


def test_each_panel_says_what_it_shows_and_reads_the_data_source_that_is_chosen():
    for panel in panels():
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["description"].endswith(".")
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert "http" not in DASHBOARD.read_text("utf-8")


def test_rules_pass_promtools_check(promtool):
    assert "SUCCESS" in run(promtool, "check", "rules", str(RULES))


def test_each_alert_fires_when_it_should_and_not_before(promtool):
    assert "SUCCESS" in run(promtool, "test", "rules", str(CASES), folder=CASES.parent)


def test_the_expressions_of_the_dashboard_are_promql(promtool, tmp_path):
    checked = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$\w+", ".*", expression)}
        for number, (_, expression) in enumerate(EXPRESSIONS)
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": checked}]}))
    assert f"{len(checked)} rules found" in run(promtool, "check", "rules", str(path))


def test_the_configuration_of_prometheus_on_the_page_is_one(promtool, tmp_path):
    (block,) = [b for b in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "# prometheus.yml" in b]
    token = tmp_path / "token"
    token.write_text("x")
    path = tmp_path / "prometheus.yml"
    path.write_text(block.replace("/etc/prometheus/tieline.token", str(token)))
    (tmp_path / "tieline-alerts.yaml").write_bytes(RULES.read_bytes())
    assert "SUCCESS" in run(promtool, "check", "config", str(path))


def run(promtool: Path, *arguments: str, folder: Path | None = None) -> str:
    answer = subprocess.run(
        [promtool, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr
