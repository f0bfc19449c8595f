"""Kafka's backend without a broker: settings, errors, and unavailable brokers."""

import time

import pytest
from confluent_kafka import KafkaError, KafkaException

from tieline.api import AccessDeniedError, ConfigError, DataError, FatalError, RetriableError
from tieline.broker.kafka.broker import KafkaBroker
from tieline.broker.kafka.codes import MEANINGS, MEANINGS_IN, Meaning, Operation, meaning
from tieline.broker.kafka.errors import call_with_timeout, error_code, poll_client, to_tieline_error
from tieline.broker.kafka.producer import KafkaProducer
from tieline.broker.kafka.settings import producer_settings
from tieline.broker.records import ProducerRecord, Unit


@pytest.fixture
def unavailable(unused_port):
    broker = KafkaBroker(f"127.0.0.1:{unused_port}", {}, offsets_topic="offsets")
    yield broker
    broker.close()


@pytest.fixture
def unused_port():
    import socket

    with (
        socket.socket() as held
    ):  # bound and not listening: so that no other process gets it, and none answers
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (error_code("_TRANSPORT"), RetriableError),
        (error_code("_ALL_BROKERS_DOWN"), RetriableError),
        (error_code("_TIMED_OUT"), RetriableError),
        (KafkaError.NOT_ENOUGH_REPLICAS, RetriableError),
        (KafkaError.ILLEGAL_GENERATION, RetriableError),
        (error_code("_FENCED"), RetriableError),
        (KafkaError.PRODUCER_FENCED, RetriableError),
        (KafkaError.MSG_SIZE_TOO_LARGE, DataError),
        (KafkaError.INVALID_RECORD, DataError),
        (error_code("_AUTHENTICATION"), AccessDeniedError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, AccessDeniedError),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, AccessDeniedError),
        (KafkaError.INVALID_REPLICATION_FACTOR, AccessDeniedError),
        (error_code("_INVALID_ARG"), FatalError),
    ],
)
def test_an_error_is_translated_with_place_and_cause(code, kind):
    for error in (KafkaError(code, "because"), KafkaException(KafkaError(code, "because"))):
        meaning = to_tieline_error(error, "producing to t", Operation.WRITE)
        assert type(meaning) is kind
        assert "producing to t" in str(meaning)
        assert "because" in str(meaning)


def test_every_code_that_the_library_knows_has_its_place_in_the_table():
    known = {
        name
        for name in dir(KafkaError)
        if name.lstrip("_").isupper() and isinstance(getattr(KafkaError, name), int)
    }
    assert len(known) > 180
    assert known - MEANINGS.keys() == set()
    assert set().union(*MEANINGS_IN.values()) <= MEANINGS.keys()
    assert MEANINGS_IN.keys() == set(Operation)


@pytest.mark.parametrize(
    ("name", "operation", "means"),
    [
        ("_UNKNOWN_PARTITION", Operation.METADATA, Meaning.WAIT),
        ("_UNKNOWN_PARTITION", Operation.READ, Meaning.WAIT),
        ("_UNKNOWN_PARTITION", Operation.COMMIT, Meaning.WAIT),
        ("_UNKNOWN_PARTITION", Operation.WRITE, Meaning.RECORD),
        ("INVALID_TIMESTAMP", Operation.WRITE, Meaning.REFUSED),
        ("INVALID_TIMESTAMP", Operation.TRANSACTION, Meaning.DENIED),
        ("MSG_SIZE_TOO_LARGE", Operation.WRITE, Meaning.REFUSED),
        ("MSG_SIZE_TOO_LARGE", Operation.READ, Meaning.UNREADABLE),
        ("_BAD_COMPRESSION", Operation.READ, Meaning.UNREADABLE),
        ("INVALID_MSG", Operation.READ, Meaning.UNREADABLE),
        ("INVALID_RECORD", Operation.WRITE, Meaning.RECORD),
        ("_INVALID_DIFFERENT_RECORD", Operation.WRITE, Meaning.REFUSED),
        ("TOPIC_AUTHORIZATION_FAILED", Operation.ADMIN, Meaning.DENIED),
        ("a code of a later library", Operation.READ, Meaning.WAIT),
    ],
)
def test_a_code_means_what_its_operation_makes_of_it(name, operation, means):
    assert meaning(name, operation) is means


@pytest.mark.parametrize("operation", [Operation.READ, Operation.METADATA, Operation.COMMIT, Operation.ADMIN])
def test_only_a_write_ever_blames_a_record(operation):
    blamed = {Meaning.RECORD, Meaning.REFUSED}
    assert [name for name in MEANINGS if meaning(name, operation) in blamed] == []


def test_a_client_that_broke_for_good_is_retriable():
    error = KafkaError(error_code("_FATAL"), "broken", fatal=True)
    assert type(to_tieline_error(error, "the producer", Operation.WRITE)) is RetriableError


def test_a_fatal_error_from_inside_a_callback_is_still_kafkas():
    def poll(timeout):
        raise SystemError("callback returned a result with an exception set") from KafkaException(
            KafkaError(error_code("_FENCED"))
        )

    with pytest.raises(KafkaException):
        poll_client(poll, 0)


def test_another_system_error_stays_what_it_is():
    def poll(timeout):
        raise SystemError("else")

    with pytest.raises(SystemError, match="else"):
        poll_client(poll, 0)


def test_a_call_without_a_time_out_is_bounded():
    begin = time.monotonic()
    with pytest.raises(RetriableError, match=r"closing: no answer within 0\.05 s"):
        call_with_timeout(lambda: time.sleep(0.5), 0.05, "closing")
    assert time.monotonic() - begin < 0.4


@pytest.mark.parametrize(
    ("make", "overrides", "keys"),
    [
        ("producer", {"acks": "1", "enable.idempotence": "false", "linger.ms": "3"}, 2),
        ("producer", {"delivery.timeout.ms": "1000"}, 1),
        ("producer", {"transactional.id": "x", "bootstrap.servers": "elsewhere:1"}, 2),
        ("consumer", {"enable.auto.commit": "true", "group.id": "mine"}, 2),
        ("consumer", {"partition.assignment.strategy": "range"}, 1),
        ("consumer", {"fetch.error.backoff.ms": "1"}, 1),  # an old id would count for a recreated topic
    ],
)
def test_overrides_that_would_break_a_promise_are_refused_together(unavailable, make, overrides, keys):
    arguments = ("client", overrides) if make == "producer" else ("group", "client", overrides)
    with pytest.raises(ConfigError) as caught:
        getattr(unavailable, make)(*arguments)
    assert len(caught.value.problems) == keys
    assert all(problem.key.startswith(f"{make}.override.") for problem in caught.value.problems)


def test_a_setting_that_the_client_does_not_know_is_named(unavailable):
    with pytest.raises(ConfigError, match=r"consumer\.override\.fetch\.min\.bites"):
        unavailable.consumer("g", "c", {"fetch.min.bites": "1"})


def test_a_secret_is_in_no_error():
    settings = {"security.protocol": "SASL_SSL", "ssl.key.password": "tell-nobody", "sasl.mechanism": "NONE"}
    with pytest.raises(ConfigError) as caught:
        KafkaBroker("127.0.0.1:1", settings, offsets_topic="offsets").topics(1)
    assert "tell-nobody" not in str(caught.value)


def test_while_the_brokers_are_unavailable_every_call_is_retriable_and_in_time(unavailable):
    calls = [
        lambda: unavailable.topics(0.1),
        lambda: unavailable.create_topic("t", timeout=0.1),
        lambda: unavailable.read("t", lambda record: None, timeout=0.1),
        lambda: unavailable.source_offsets("c", 0.1),
        lambda: unavailable.exclusive("t", 0.1).__enter__(),
    ]
    for call in calls:
        begin = time.monotonic()
        with pytest.raises(RetriableError):
            call()
        assert time.monotonic() - begin < 5


class _Nobody:
    def assigned(self, partitions):
        pass

    def revoked(self, partitions):
        pass

    def lost(self, partitions):
        pass


def test_while_the_brokers_are_unavailable_a_consumer_waits_and_closes_in_time(unavailable):
    consumer = unavailable.consumer("g", "c", {})
    consumer.subscribe(["t"], "u.*", _Nobody())
    begin = time.monotonic()
    assert consumer.poll(10, 0.3) == []
    assert time.monotonic() - begin < 3
    with pytest.raises(RetriableError, match="not assigned yet"):
        consumer.lag()
    consumer.close(5)
    assert time.monotonic() - begin < 10


def test_while_the_brokers_are_unavailable_a_producer_keeps_its_units(unused_port):
    servers = {"bootstrap.servers": f"127.0.0.1:{unused_port}"}
    settings = producer_settings(servers, {"queue.buffering.max.messages": "10"})
    producer = KafkaProducer(settings, "offsets")
    begin = time.monotonic()
    producer.send(Unit([ProducerRecord("t", b"v") for _ in range(100)]))
    assert time.monotonic() - begin < 1
    assert producer.poll(0.2) == []
    assert producer.in_flight_bytes >= 100
    with pytest.raises(RetriableError):
        producer.save_offsets("c", {"{}": "{}"}, 0.2)
    producer.close(0.2)
    assert producer.in_flight_bytes == 0
    assert time.monotonic() - begin < 5
