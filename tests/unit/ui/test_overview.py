"""The overview shows the pipeline, and abnormal parts first."""

import time

import pytest

from tieline.api.pages import RunningConnector
from tieline.ui.templating import byte_size
from tieline.ui.topic_flow import topic_flows


def source(name, topic):
    return RunningConnector(name, "file", "source", {"topic": topic} if topic else {}, ())


def sink(name, *topics):
    return RunningConnector(name, "file", "sink", {}, topics)


def page_with(served, text):
    """Return the overview as soon as it contains the text: ledgers are at most a second old."""
    end = time.monotonic() + 10
    while text not in (html := served.browser().get("/").html):
        assert time.monotonic() < end, html
        time.sleep(0.1)
    return html


def test_a_topic_has_the_rates_of_all_its_sources_and_the_names_of_its_sinks():
    connectors = [source("a", "readings"), source("b", "readings"), sink("c", "readings", "other")]
    readings, other = topic_flows(connectors, {"a": 1.5, "b": 2.0, "c": 3.5})
    assert readings == ("readings", ["a", "b"], ["c"], 3.5)
    assert other == ("other", (), ["c"], None)


def test_before_there_is_a_rate_a_topic_has_none_and_a_source_without_the_setting_has_no_topic():
    assert topic_flows([source("a", "t"), source("b", "")], {"a": None}) == [("t", ["a"], (), None)]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "–"),
        (0, "0\u202fbytes"),
        (999, "999\u202fbytes"),
        (1500, "1.5\u202fkB"),
        (2**60, "1.15e+06\u202fTB"),
    ],
)
def test_a_number_of_bytes_has_the_unit_that_people_read(size, text):
    assert byte_size(size) == text


def test_the_page_shows_topics_and_names_what_is_abnormal_before_the_diagram(serve, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("")
    served = serve(
        [
            {"name": "well", "connector.class": "file", "file": str(lines), "topic": "lines"},
            {"name": "waits", "connector.class": "file", "file": str(tmp_path / "out"), "topics": "no-such"},
        ]
    )
    connectors = {each.name: each for each in served.worker.connectors}
    connectors["waits"].outages.topics.not_connected("the topic no-such", "there is no such topic")
    html = page_with(served, "Not connected to the topic no-such")
    problem = html.index("Not connected to the topic no-such")
    assert html.index("Abnormal: 1 of 2") < problem < html.index('class="pipeline"')
    assert "filled by other programs" in html
    assert '<span class="end end-lost">' not in html


def test_an_external_system_that_is_unavailable_is_marked_and_what_comes_from_outside_is_text(
    serve, tmp_path
):
    served = serve(
        [{"name": "out", "connector.class": "file", "file": str(tmp_path / "out"), "topics": "lines"}]
    )
    (connector,) = served.worker.connectors
    connector.outages.topics.not_connected("<b>disk", "<script>alert(1)</script>")
    html = page_with(served, '<span class="end end-lost">file</span>')
    assert "<script>alert" not in html
    assert "<b>disk" not in html


def test_a_worker_without_connectors_says_what_to_do(serve):
    html = serve().browser().get("/").html
    assert "This worker runs no connector yet" in html
    assert "tieline run worker.yaml" in html
    assert "All 0 connectors" not in html
