"""Who may scrape ``/metrics``, and in which format."""

from __future__ import annotations

import base64
import http.client
import socket
import threading

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain
from tests.unit.conftest import PASSWORD

from tieline.http.passwords import hash_token
from tieline.http.users import Account, Role, User
from tieline.metrics.exposition import OPENMETRICS, PLAIN


def address(served):
    host, _, port = served.url.removeprefix("http://").removesuffix("/ui/").partition(":")
    return host, int(port)


def request(served, method="GET", path="/metrics", **headers):
    host, port = address(served)
    connection = http.client.HTTPConnection(host, port, timeout=20)
    connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, response.getheader("content-type"), body.decode()


def basic(name, password):
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ({}, PLAIN),
        ({"Accept": PROMETHEUS}, OPENMETRICS),
        ({"Accept": "text/plain;version=0.0.4"}, PLAIN),
        ({"Accept": "*/*"}, PLAIN),
        ({"Accept": "application/openmetrics-text;version=x;;=,,\xff" + "," * 5000}, OPENMETRICS),
        ({"Accept": "application/openmetrics-texts, ;q=;" + "\\" * 99}, PLAIN),
    ],
)
def test_the_format_is_the_one_that_the_client_accepts(serve, accept, media_type):
    status, found, text = request(serve(), **accept)
    assert (status, found) == (200, media_type)
    parse = parse_openmetrics if media_type == OPENMETRICS else parse_plain
    assert "tieline_build_info" in {f"{family.name}" for family in parse(text)}


def test_with_users_a_scraper_needs_the_password_or_token_of_one(serve, users_file):
    token = Account(User("prometheus", Role.VIEWER), "token", hash_token("a-long-random-token"))
    users_file.write_text(users_file.read_text() + token.line() + "\n")
    served = serve(listeners_users_file=str(users_file))
    assert request(served)[0] == 401
    assert request(served, Authorization="Bearer wrong")[0] == 401
    assert request(served, Authorization=basic("vera", "wrong"))[0] == 401
    assert request(served, Authorization="Basic \xff")[0] == 401
    assert request(served, Authorization="Bearer a-long-random-token")[0] == 200
    assert request(served, Authorization=basic("vera", PASSWORD))[0] == 200
    assert "tieline" not in request(served)[2]


def test_a_browser_that_is_signed_in_sees_the_metrics(serve, users_file):
    served = serve(listeners_users_file=str(users_file))
    browser = served.browser()
    assert browser.get(f"{browser.base}/metrics").status == 401
    browser.sign_in("vera")
    assert "tieline_build_info" in browser.get(f"{browser.base}/metrics").html


def test_guessing_passwords_at_the_metrics_is_slowed_down(serve, users_file):
    served = serve(listeners_users_file=str(users_file))
    statuses = [request(served, Authorization=basic("vera", f"guess {n}"))[0] for n in range(12)]
    assert statuses == [401] * 10 + [429] * 2


def test_without_users_another_sites_name_for_this_address_is_refused(serve):
    assert request(serve(), Host="evil.example")[0] == 421


@pytest.mark.parametrize("path", ["/metrics%0a", "/metrics/x", "/Metrics", "/metrics/../metrics"])
def test_no_other_address_has_the_metrics(serve, path):
    status, _, text = request(serve(), path=path)
    assert status == 404
    assert "tieline_build_info" not in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "X"])
def test_metrics_can_only_be_read(serve, method):
    status, _, text = request(serve(), method=method)
    assert status == 404
    assert "tieline_build_info" not in text


def test_scrapers_that_never_read_do_not_keep_others_waiting(serve):
    served = serve()
    silent = []
    try:
        for _ in range(50):
            silent.append(socket.create_connection(address(served), 20))
            silent[-1].sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        assert request(served)[0] == 200
    finally:
        for each in silent:
            each.close()


def test_many_scrapes_at_once_are_all_answered(serve):
    served = serve()
    statuses = []
    threads = [threading.Thread(target=lambda: statuses.append(request(served)[0])) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [200] * 30
