"""What of a worker becomes which metric."""

from __future__ import annotations

import math

import pytest
from tests.unit.metrics.snapshots import COUNTS, make_connector, make_task, make_worker, samples_of

from tieline.api.metrics import CounterMetric, DurationMetric
from tieline.metrics.definitions import DEFINITIONS, STATES
from tieline.metrics.families import Families
from tieline.metrics.snapshot import BUCKETS, Distribution
from tieline.metrics.trends import Trends

SECONDS = DurationMetric("outage_seconds", "Help.", "x")


def test_the_ledger_of_a_connector_is_exported_with_its_type():
    samples = samples_of(make_worker(out=make_connector(lag=7, lag_seconds=2.5)))
    labels = ("connector=out", "type=sink")
    assert samples[("tieline_records_received_total", *labels)] == 10
    assert samples[("tieline_records_delivered_total", *labels)] == 6
    assert samples[("tieline_records_dead_lettered_total", *labels)] == 1
    assert samples[("tieline_records_filtered_total", *labels)] == 2
    assert samples[("tieline_records_in_flight", *labels)] == 1
    assert samples["tieline_lag_records", "connector=out"] == 7
    assert samples["tieline_lag_seconds", "connector=out"] == 2.5


def test_an_unknown_lag_is_missing_rather_than_zero():
    samples = samples_of(make_worker(out=make_connector(lag=None)))
    assert not {key for key in samples if key[0].startswith("tieline_lag")}


def test_the_last_records_have_their_times_once_there_were_some():
    samples = samples_of(make_worker(x=make_connector(last_received_ms=5500, last_delivered_ms=None)))
    assert samples["tieline_last_received_timestamp_seconds", "connector=x"] == 5.5
    assert ("tieline_last_delivered_timestamp_seconds", "connector=x") not in samples


def test_a_connector_and_a_task_are_in_exactly_one_state():
    tasks = [make_task(0, "RUNNING"), make_task(1, "FAILED")]
    samples = samples_of(make_worker(out=make_connector(state="FAILED", tasks=tasks)))
    for state in STATES:
        connector = "tieline_connector_state", "connector=out", f"state={state}", "type=sink"
        assert samples[connector] == (state == "failed")
        task = "tieline_task_state", "connector=out", f"state={state}", "task=1"
        assert samples[task] == (state == "failed")
    assert samples["kafka_connect_connector_status", "connector=out", "status=failed"] == 1
    assert samples["kafka_connect_worker_connector_failed_task_count", "connector=out"] == 1
    assert samples["kafka_connect_worker_connector_running_task_count", "connector=out"] == 1
    assert samples["kafka_connect_worker_connector_total_task_count", "connector=out"] == 2
    assert samples["kafka_connect_connector_task_status", "connector=out", "status=failed", "task=1"] == 1


def test_the_worker_counts_connectors_and_tasks():
    worker = make_worker(a=make_connector(), b=make_connector("source", state="FAILED", tasks=[]))
    samples = samples_of(worker)
    prefix = "kafka_connect_worker_connector"
    assert samples[(f"{prefix}_count",)] == 2
    assert samples[("kafka_connect_worker_task_count",)] == 1
    assert samples[("tieline_worker_start_time_seconds",)] == 1000
    assert samples[("tieline_worker_heartbeat_timestamp_seconds",)] == 1100
    assert samples["tieline_build_info", "version=9.9"] == 1


def test_the_process_is_measured_under_names_that_the_node_exporter_does_not_use():
    samples = samples_of(make_worker())
    assert samples[("tieline_process_cpu_seconds_total",)] > 0
    assert samples[("tieline_process_resident_memory_bytes",)] > 1e6
    assert not {key for key in samples if key[0].startswith("process_")}


def test_a_received_total_never_falls_when_a_rebalance_returns_records():
    trends = Trends()
    key = "tieline_records_received_total", "connector=out", "type=sink"
    task = "kafka_connect_sink_task_sink_record_read_total", "connector=out", "task=0"
    for received, expected in ((10, 10), (4, 10), (10, 10), (12, 12)):
        worker = make_worker(out=make_connector(received=received, tasks=[make_task(received=received)]))
        samples = samples_of(worker, trends)
        assert samples[key] == samples[task] == expected


def test_tasks_of_a_source_and_of_a_sink_have_kafka_connects_names():
    labels = "connector=x", "task=0"
    source = samples_of(make_worker(x=make_connector("source")))
    assert source[("kafka_connect_source_task_source_record_poll_total", *labels)] == 10
    assert source[("kafka_connect_source_task_source_record_write_total", *labels)] == 6
    assert source[("kafka_connect_source_task_source_record_active_count", *labels)] == 1
    assert source["kafka_connect_connector_connector_type", "connector=x", "connector_type=source"] == 1
    task = make_task(retries=3)._replace(partitions=4)
    sink = samples_of(make_worker(x=make_connector("sink", tasks=[task])))
    assert sink[("kafka_connect_sink_task_partition_count", *labels)] == 4
    assert sink[("kafka_connect_sink_task_sink_record_send_total", *labels)] == 6
    assert sink[("kafka_connect_task_error_total_record_failures", *labels)] == 1
    assert sink[("kafka_connect_task_error_total_retries", *labels)] == 3
    assert sink[("tieline_task_retries_total", *labels)] == 3
    assert not {key for key in sink if "source_task" in key[0]}


def test_what_a_source_took_in_is_counted_at_its_spool_if_it_has_one():
    key = "tieline_source_records_total", "connector=x"
    assert samples_of(make_worker(x=make_connector("source")))[key] == 10
    spooled = make_connector("source", spool_records=5, spool_bytes=50, counters={"spooled": 15})
    assert samples_of(make_worker(x=spooled))[key] == 15


def test_counters_become_reasons_of_the_frameworks_metrics_and_the_rest_keeps_its_name():
    counters = {
        "skipped.tombstone": 1,
        "dropped.spool_full": 2,
        "lost.spool_damaged": 3,
        "quarantined.not_json": 4,
        "dead_letters.VALUE_CONVERTER": 7,
        "retries": 5,
        "restarts": 8,
        "duplicates": 6,
    }
    samples = samples_of(make_worker(x=make_connector(counters=counters)))
    found = {key: value for key, value in samples.items() if {"connector=x"} < set(key[1:])}
    labels = ("reason=", "stage=")
    by_reason = {(key[0], key[-1]): number for key, number in found.items() if key[-1].startswith(labels)}
    assert by_reason == {
        ("tieline_records_skipped_total", "reason=tombstone"): 1,
        ("tieline_records_dropped_by_reason_total", "reason=dropped.spool_full"): 2,
        ("tieline_records_dropped_by_reason_total", "reason=lost.spool_damaged"): 3,
        ("tieline_dead_letters_total", "stage=VALUE_CONVERTER"): 7,
        ("tieline_records_quarantined_total", "reason=not_json"): 4,
    }
    others = {key[2]: value for key, value in found.items() if key[0] == "tieline_task_counter_total"}
    assert others == {"name=duplicates": 6}
    assert samples["tieline_records_dropped_total", "connector=x"] == 5
    assert samples["tieline_restarts_total", "connector=x"] == 8


def test_what_may_go_wrong_is_zero_until_it_does():
    """An increase from a counter that did not exist before would be no increase."""
    samples = samples_of(make_worker(x=make_connector(topics={})))
    for name in ("records_dropped_total", "restarts_total", "restart_attempts", "restart_breaker_open"):
        assert samples[f"tieline_{name}", "connector=x"] == 0
    assert samples["tieline_ledger_mismatch_records", "connector=x"] == 0


def test_an_open_breaker_and_a_mismatch_are_shown():
    topics = {"a": {**COUNTS, "mismatch": -2}, "b": {**COUNTS, "mismatch": 3}}
    samples = samples_of(make_worker(x=make_connector(breaker="open", attempts=4, topics=topics)))
    assert samples["tieline_restart_breaker_open", "connector=x"] == 1
    assert samples["tieline_restart_attempts", "connector=x"] == 4
    assert samples["tieline_ledger_mismatch_records", "connector=x"] == 5


def test_a_mismatch_of_a_spool_is_shown_and_a_source_without_totals_has_none():
    worker = make_worker(
        spooled=make_connector(type="source", mismatch=3), read=make_connector(type="source")
    )
    samples = samples_of(worker)
    assert samples["tieline_ledger_mismatch_records", "connector=spooled"] == 3
    assert ("tieline_ledger_mismatch_records", "connector=read") not in samples


def test_the_durable_ledger_is_shown_by_topic_and_for_at_most_500_topics():
    topics = {f"t{number}": {**COUNTS, "since": 1, "mismatch": 0} for number in range(600)}
    samples = samples_of(make_worker(x=make_connector(topics=topics)))
    found = {key[2:]: value for key, value in samples.items() if key[0] == "tieline_topic_records"}
    one = {key[0].removeprefix("outcome="): value for key, value in found.items() if key[1] == "topic=t7"}
    assert one == COUNTS
    assert len(found) == 500 * len(COUNTS)


def test_a_plugin_that_counts_by_millions_of_names_does_not_fill_prometheus():
    counters = {f"device.{number}": 1 for number in range(10_000)}
    samples = samples_of(make_worker(x=make_connector(counters=counters)))
    assert sum(key[0] == "tieline_task_counter_total" for key in samples) == 500


def test_a_connectors_own_metrics_have_their_own_names():
    metrics = (
        CounterMetric("command_ended", "Ends.", "ended.*", "state"),
        CounterMetric("command_executed", "Writes.", "executed"),
        DurationMetric("command_call_seconds", "Calls.", "rpc"),
    )
    counts = [0] * (len(BUCKETS) + 1)
    counts[2], counts[-1] = 3, 1
    connector = make_connector(
        counters={"ended.DONE": 2, "ended.EXPIRED": 1, "other": 9},
        metrics=metrics,
        durations={"rpc": Distribution(tuple(counts), 400.03)},
    )
    samples = samples_of(make_worker(x=connector, y=make_connector(metrics=metrics)))
    assert samples["tieline_command_ended_total", "connector=x", "state=DONE"] == 2
    assert samples["tieline_command_ended_total", "connector=x", "state=EXPIRED"] == 1
    assert samples["tieline_command_executed_total", "connector=x"] == 0
    assert samples["tieline_task_counter_total", "connector=x", "name=other"] == 9
    buckets = {key[2]: value for key, value in samples.items() if key[:2] == bucket_of("x")}
    assert (buckets["le=0.005"], buckets["le=0.01"], buckets["le=300.0"], buckets["le=+Inf"]) == (0, 3, 3, 4)
    assert samples["tieline_command_call_seconds_count", "connector=x"] == 4
    assert samples["tieline_command_call_seconds_sum", "connector=x"] == 400.03
    assert samples["tieline_command_call_seconds_count", "connector=y"] == 0


def bucket_of(connector):
    return "tieline_command_call_seconds_bucket", f"connector={connector}"


@pytest.mark.parametrize("metric", [CounterMetric("records_received", "Help.", "x"), SECONDS])
def test_a_metric_with_a_name_of_the_frameworks_is_left_out_and_logged_once(metric, caplog):
    trends = Trends()
    for _ in range(2):
        worker = make_worker(x=make_connector(counters={"x": 4}, metrics=[metric]))
        samples = samples_of(worker, trends)
        assert samples["tieline_task_counter_total", "connector=x", "name=x"] == 4
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"the metric {metric.name} is not exported" in caplog.text


def test_two_plugins_with_one_name_for_different_metrics_do_not_mix():
    first, second = CounterMetric("a", "One.", "x"), CounterMetric("a", "Other.", "y.*", "kind")
    samples = samples_of(
        make_worker(
            one=make_connector(counters={"x": 1}, metrics=[first]),
            two=make_connector(counters={"y.z": 2}, metrics=[second]),
        )
    )
    assert samples["tieline_a_total", "connector=one"] == 1
    assert samples["tieline_task_counter_total", "connector=two", "name=y.z"] == 2
    assert not {key for key in samples if key[0] == "tieline_a_total" and "connector=two" in key}


def test_an_outage_is_shown_by_its_length_and_ends_the_time_of_being_connected():
    outage = {"to": "m", "since": "1970-01-01T00:17:20+00:00", "because": "refused"}  # at 1040 s
    samples = samples_of(make_worker(x=make_connector(not_connected=[outage]), y=make_connector()))
    assert samples["tieline_connected", "connector=x"] == 0
    assert samples["tieline_outage_seconds", "connector=x"] == 60
    assert ("tieline_connected_since_timestamp_seconds", "connector=x") not in samples
    assert samples["tieline_connected", "connector=y"] == 1
    assert samples["tieline_outage_seconds", "connector=y"] == 0
    assert samples["tieline_connected_since_timestamp_seconds", "connector=y"] == 500


@pytest.mark.parametrize("since", ["1970-01-01T01:00:00+00:00", "99999999999999999 ms"])
def test_an_outage_that_a_wrong_clock_noted_has_lasted_no_time(since):
    outage = {"to": "m", "since": since, "because": "refused"}
    samples = samples_of(make_worker(x=make_connector(not_connected=[outage])))
    assert samples["tieline_outage_seconds", "connector=x"] == 0
    assert samples["tieline_connected", "connector=x"] == 0


def test_a_spool_has_its_use_its_limit_its_age_and_a_forecast():
    trends = Trends()

    def sample_at(uptime, used):
        connector = make_connector(
            "source", spool_records=3, spool_bytes=used, spool_age_seconds=4.5, spool_limit=1000
        )
        return samples_of(make_worker(uptime, x=connector), trends)

    first, second = sample_at(0.0, 100), sample_at(360.0, 200)
    assert first["tieline_spool_records", "connector=x"] == 3
    assert first["tieline_spool_bytes", "connector=x"] == 100
    assert first["tieline_spool_limit_bytes", "connector=x"] == 1000
    assert first["tieline_spool_age_seconds", "connector=x"] == 4.5
    assert first["tieline_spool_hours_until_full", "connector=x"] == math.inf
    assert second["tieline_spool_hours_until_full", "connector=x"] == pytest.approx(0.8)


def test_a_spool_that_cannot_be_counted_now_is_missing():
    connector = make_connector("source", spool_records=None, spool_bytes=None, spool_limit=1000)
    samples = samples_of(make_worker(x=connector))
    assert not {key for key in samples if key[0].startswith("tieline_spool")}


def test_a_sample_with_other_labels_than_its_definition_is_an_error():
    families = Families(DEFINITIONS)
    with pytest.raises(ValueError, match="tieline_lag_records has the labels"):
        families.add("tieline_lag_records", 1, task="0")
    with pytest.raises(KeyError):
        families.add("tieline_unheard_of", 1)


def test_each_definition_has_a_help_text_that_is_a_sentence_and_a_valid_name():
    assert len(DEFINITIONS) >= 60
    for definition in DEFINITIONS.values():
        assert definition.help.endswith("."), definition
        assert definition.help[0].isupper() or definition.help[0].isdigit(), definition
        assert (definition.kind == "counter") == definition.name.endswith("_total"), definition
        assert definition.name.startswith(("tieline_", "kafka_connect_")), definition
