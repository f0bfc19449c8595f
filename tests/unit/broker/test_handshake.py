"""A wrong security.protocol is said once, with what to check, at a level that everybody logs."""

import logging
import socket
import threading
import time

import pytest

from tieline.api import RetriableError
from tieline.broker.kafka.broker import KafkaBroker
from tieline.broker.kafka.handshake import Handshakes, meaning

CLOSED = (
    "FAIL [rdkafka#producer-2] [thrd:127.0.0.1:9092/bootstrap]: 127.0.0.1:9092/bootstrap: Disconnected: "
    "connection closed by peer: receive 0 after POLLIN (after {ms}ms in state {state})"
)
TLS = (
    "FAIL [rdkafka#producer-2] [thrd:ssl://kafka:9093/bootstrap]: ssl://kafka:9093/bootstrap: SSL handshake "
    "failed: Disconnected: connection reset by peer: connecting to a PLAINTEXT broker listener? "
    "(after 0ms in state SSL_HANDSHAKE)"
)
UNKNOWN_CA = (
    "FAIL [rdkafka#producer-2] [thrd:ssl://kafka:9093/bootstrap]: ssl://kafka:9093/bootstrap: SSL handshake "
    "failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified"
)
REFUSED = (
    "FAIL [rdkafka#producer-2] [thrd:h:9092/bootstrap]: h:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 "
    "failed: Connection refused (after 0ms in state CONNECT)"
)


@pytest.mark.parametrize(
    ("line", "broker", "explanation"),
    [
        (CLOSED.format(ms=1, state="APIVERSION_QUERY"), "127.0.0.1:9092", "may speak SSL or SASL"),
        (CLOSED.format(ms=3, state="UP"), "127.0.0.1:9092", "may speak SSL or SASL"),
        (TLS, "kafka:9093", "may not speak SSL"),
        (UNKNOWN_CA, "kafka:9093", "check ssl.ca.location"),
        (CLOSED.format(ms=90_000, state="UP"), "", ""),
        (REFUSED, "", ""),
        ("", "", ""),
    ],
)
def test_the_meaning_of_a_line_is_logged_with_its_broker(line, broker, explanation):
    named, hint, _ = meaning(line)
    assert named == broker
    assert explanation in hint


def passed(handshakes, line):
    assert handshakes.filter(logging.LogRecord("tieline.kafka", logging.INFO, "", 0, line, None, None))


def test_the_meaning_is_logged_once_and_again_after_ten_minutes(caplog):
    now = [0.0]
    handshakes = Handshakes(lambda: now[0])
    for second in range(1_000):
        now[0] = float(second)
        passed(handshakes, CLOSED.format(ms=1, state="APIVERSION_QUERY"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "Check security.protocol" in handshakes.hint()


def test_a_broker_that_restarts_is_not_suspected(caplog):
    now = [0.0]
    handshakes = Handshakes(lambda: now[0])
    for second in (0, 1, 30, 31, 60, 61):
        now[0] = float(second)
        passed(handshakes, CLOSED.format(ms=1, state="APIVERSION_QUERY"))
    assert caplog.records == []
    assert handshakes.hint() == ""


def test_the_error_of_a_rejected_client_explains_why():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def turn_away() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1)

        threading.Thread(target=turn_away, daemon=True).start()
        logging.getLogger("tieline.kafka").setLevel(logging.INFO)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        broker = KafkaBroker(address, {}, offsets_topic="", call_timeout=1.0)
        end = time.monotonic() + 20
        explanation = ""
        while "security.protocol" not in explanation:
            assert time.monotonic() < end, explanation
            with pytest.raises(RetriableError) as caught:
                broker.topic_names(1.0)
            explanation = str(caught.value)
        assert f"Kafka at {address}: it closes each connection during the handshake" in explanation
        server.shutdown(socket.SHUT_RDWR)
