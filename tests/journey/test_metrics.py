"""The metrics of a real worker: each name that the dashboard, the rules and Strimzi's dashboard use."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from docs_generator.metrics import of_plugins
from prometheus_client.parser import text_string_to_metric_families
from tests.meta.monitoring import ROOT, RULES, expressions, recorded
from tests.meta.promql import parse

from tieline.metrics.definitions import DEFINITIONS
from tieline.metrics.kafka_connect import KAFKA_CONNECT
from tieline.testing.worker_process import WorkerProcess
from tieline_lab.process import free_port

AFTER_AN_EVENT = {
    "tieline_command_circuits_total",
    "tieline_command_ended_total",
    "tieline_connected_since_timestamp_seconds",  # nothing is connected to the platform here
    "tieline_records_dropped_by_reason_total",
    "tieline_records_quarantined_total",
    "tieline_records_skipped_total",
    "tieline_task_counter_total",
}
"""Metrics with a label that is only known when something happens. Unit tests have them with samples."""
AFTER_AN_EVENT |= {"tieline_spool_age_seconds"}  # needs what the ledger does not know yet

OF_A_LABEL = 'strimzi_io_kind=~"KafkaConnect.*",strimzi_io_cluster="tieline"'
"""How Strimzi's dashboard selects the workers of one cluster."""


def connectors(folder: Path) -> list[dict[str, str]]:
    (folder / "in.txt").write_text("".join(f"{number}\n" for number in range(99)) + "not JSON\n")
    nowhere = "tcp://127.0.0.1:1"
    command = {
        "topics": "commands",
        "volttron.address": nowhere,
        "platform.name": "plant",
        "policy.file": str(ROOT / "examples" / "policy.yaml"),
        "audit.file": str(folder / "audit.log"),
        "kill.switch.file": str(folder / "stop"),
    }
    return [
        {"name": "lines", "connector.class": "file", "file": str(folder / "in.txt"), "topic": "lines"},
        {"name": "out", "connector.class": "file", "file": str(folder / "out.txt"), "topics": "lines"},
        {
            "name": "json",
            "connector.class": "file",
            "file": str(folder / "json.txt"),
            "topics": "lines",
            "value.converter": "json",
            "value.converter.schemas.enable": "false",
            "errors.tolerance": "all",
            "errors.deadletterqueue.topic.name": "letters",
        },
        {"name": "bus", "connector.class": "volttron_bus", "platform.name": "p", "volttron.address": nowhere},
        {"name": "commands", "connector.class": "command", **command},
    ]


@contextmanager
def running(folder: Path, **settings: str):
    """A worker with one connector of each kind, after it has delivered 100 records; yields its port."""
    port = free_port()
    worker = {"listeners": f"http://127.0.0.1:{port}", "value.converter": "string", **settings}
    with WorkerProcess(folder, worker, connectors(folder)) as process:
        process.wait_for("the pages are served", timeout=90.0)
        process.wait_for_ledger(
            lambda ledger: ledger["out"]["delivered"] == 100 and ledger["json"]["delivered"] == 99
        )
        known_later = {
            "tieline_lag_records",
            "tieline_lag_seconds",
            "tieline_last_delivered_timestamp_seconds",
            "tieline_last_received_timestamp_seconds",
            "tieline_topic_records",
        }
        wait_for(lambda: known_later <= scrape(port).keys())  # once a sink knows its partitions
        yield port


def scrape(port: int) -> dict[str, set[frozenset[str]]]:
    """The labels of each sample, by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        return names_in(answer.read().decode())


def names_in(text: str) -> dict[str, set[frozenset[str]]]:
    found: dict[str, set[frozenset[str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).add(frozenset(sample.labels))
    return found


def test_a_dead_letter_is_counted_by_its_stage_and_in_kafka_connects_names(tmp_path):
    with running(tmp_path) as port, urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    json = 'connector="json"'
    found = [line for line in lines if json in line and line.endswith(" 1.0") and "info" not in line]
    for sample in (
        f'tieline_records_dead_lettered_total{{{json},type="sink"}} 1.0',
        f'tieline_dead_letters_total{{{json},stage="VALUE_CONVERTER"}} 1.0',
        f'kafka_connect_task_error_total_record_failures{{{json},task="0"}} 1.0',
        f'kafka_connect_task_error_deadletterqueue_produce_requests{{{json},task="0"}} 1.0',
    ):
        assert sample in found


def test_a_worker_exports_each_metric_that_is_defined_and_no_other(tmp_path):
    with running(tmp_path, **{"metrics.textfile": str(tmp_path / "tieline.prom")}) as port:
        samples = scrape(port)
        # Counters may appear meanwhile, so each comparison scrapes again.
        wait_for(lambda: names_in((tmp_path / "tieline.prom").read_text()) == scrape(port))
    defined = {**DEFINITIONS, **{each.name: each for each in of_plugins()}}
    for name in defined.keys() - AFTER_AN_EVENT:
        definition = defined[name]
        shown = f"{name}_bucket" if definition.kind == "histogram" else name
        labels = {*definition.labels, "le"} if definition.kind == "histogram" else set(definition.labels)
        assert samples.get(shown) == {frozenset(labels)}, name
    plain = {re.sub("_(bucket|count|sum)$", "", name) for name in samples if name not in defined}
    assert plain <= {each.name for each in of_plugins()}
    assert not (tmp_path / "tieline.prom").exists()


def test_each_expression_of_the_dashboard_and_the_rules_names_metrics_of_a_live_scrape(tmp_path):
    with running(tmp_path) as port:
        samples = scrape(port)
    missing = {
        (where, metric)
        for where, expression in expressions()
        for metric, _ in parse(expression)[0]
        if metric not in samples and metric not in AFTER_AN_EVENT | recorded()
    }
    assert missing == set()


def test_a_real_prometheus_answers_every_expression(tmp_path, prometheus):
    """Its own, those of the rules, and queries of the forms that Strimzi's dashboard has."""
    with running(tmp_path) as port, prometheus_of(prometheus, tmp_path / "prometheus", port) as ask:
        wait_for(lambda: ask("rate(tieline_records_delivered_total[5m])"))
        empty = [
            where
            for where, expression in expressions()
            if not ask(re.sub(r"\$\w+", ".*", expression)) and is_always_there(where, expression)
        ]
        assert empty == []
        for expression in of_strimzi():
            assert ask(expression), expression


def is_always_there(where: str, expression: str) -> bool:
    """Whether a panel has a line when all is well. An alert has none, nor have durations without calls."""
    metrics = {metric for metric, _ in parse(expression)[0]}
    is_rule = where.startswith(("Tieline", "tieline:"))
    has_durations = "histogram_quantile" in expression
    return not is_rule and not has_durations and not metrics & (AFTER_AN_EVENT | recorded())


def of_strimzi() -> list[str]:
    """Queries by which Strimzi's panels and rules read the metrics that are claimed to work."""
    status = f"kafka_connect_connector_status{{{OF_A_LABEL}}}"
    for part in ("class", "version", "type"):
        status += (
            f" * on(connector) group_left(connector_{part}) kafka_connect_connector_connector_{part}{{}}"
        )
    failures = f"kafka_connect_task_error_total_record_failures{{{OF_A_LABEL}}}"
    counts = [each.name for each in KAFKA_CONNECT if each.name.endswith(("_count", "connectors", "_tasks"))]
    return [
        *(f"sum({name}{{{OF_A_LABEL}}}) by (kubernetes_pod_name)" for name in counts),
        f"sum({status}) by (connector, status, connector_class, connector_version, connector_type)",
        f"sum({failures} * on(connector, task) group_left(status) kafka_connect_connector_task_status{{}})"
        " by (connector, status, kubernetes_pod_name, task)",
        "sum(kafka_connect_worker_connector_failed_task_count) by (namespace) >= 0",
    ]


@contextmanager
def prometheus_of(program: Path, folder: Path, port: int):
    """A Prometheus that scrapes a worker each second; yields what asks it."""
    folder.mkdir()
    own = free_port()
    target = {
        "targets": [f"127.0.0.1:{port}"],
        "labels": {
            "strimzi_io_kind": "KafkaConnect",
            "strimzi_io_cluster": "tieline",
            "namespace": "plants",
            "kubernetes_pod_name": "plant-a",
        },
    }
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "tieline", "static_configs": [target]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        str(program),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{own}",
        "--log.level=warn",
    ]

    def ask(expression: str) -> list[object]:
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://127.0.0.1:{own}/api/v1/query?{query}", timeout=20) as answer:
            result: list[object] = json.load(answer)["data"]["result"]
            return result

    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log, stdout=log) as process:
        try:
            yield ask
        finally:
            process.terminate()


def wait_for(condition, seconds: float = 90.0) -> None:
    """Wait until a server answers with something."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            pytest.fail(f"nothing came within {seconds} s")
        time.sleep(0.2)
