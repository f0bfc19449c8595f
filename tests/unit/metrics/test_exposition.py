"""The text of metrics is what Prometheus' own parsers read, and is made at most once a second."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain
from tests.unit.metrics.snapshots import make_connector, make_worker

from tieline.metrics.exposition import OPENMETRICS, PLAIN, WorkerMetrics


class Reader:
    """Counts how often a worker was read; each time it has received one record more."""

    def __init__(self) -> None:
        self.reads = 0
        self.now = 0.0

    def __call__(self):
        self.reads += 1
        return make_worker(x=make_connector(received=self.reads, counters={'a"\n\\{}': 1}))

    def metrics(self):
        return WorkerMetrics(self, lambda: self.now)


def values(families):
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_both_formats_hold_the_same_samples():
    metrics = Reader().metrics()
    plain, openmetrics = metrics.render(), metrics.render(openmetrics=True)
    assert (plain.media_type, openmetrics.media_type) == (PLAIN, OPENMETRICS)
    first = values(parse_plain(plain.text.decode()))
    assert first == values(parse_openmetrics(openmetrics.text.decode()))
    assert len(first) > 50
    assert first["tieline_task_counter_total", ("connector", "x"), ("name", 'a"\n\\{}')] == 1


def test_many_scrapes_within_a_second_read_the_worker_once():
    reader = Reader()
    metrics = reader.metrics()
    texts = {metrics.render().text for _ in range(5)}
    metrics.render(openmetrics=True)
    assert (len(texts), reader.reads) == (1, 1)
    reader.now = 1.0
    assert metrics.render().text not in texts
    assert reader.reads == 2
