"""Translating Kafka's errors into those of the broker interface."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

from tieline.api import AccessDeniedError, DataError, FatalError, RetriableError, TielineError
from tieline.broker.kafka.codes import TOO_LARGE, Meaning, Operation, meaning
from tieline.broker.port import RefusedNowError, TooLargeError, UnreadableError

T = TypeVar("T")

_FIXES = {
    "INVALID_TIMESTAMP": "Check this machine's clock and the topic's message.timestamp.after.max.ms",
    "MSG_SIZE_TOO_LARGE": "Raise the topic's max.message.bytes, or filter the record with a transform",
    "OFFSET_METADATA_TOO_LARGE": "Raise the broker's offset.metadata.max.bytes to its default, 4096",
    "TOPIC_AUTHORIZATION_FAILED": "Grant this principal the right to read or write the topic",
    "GROUP_AUTHORIZATION_FAILED": "Grant this principal the right to read the group",
}


def error_code(name: str) -> int:
    """Return the number of an error. The names of librdkafka's own begin with an underscore."""
    return int(getattr(KafkaError, name))


PARTITION_EOF = error_code("_PARTITION_EOF")
UNKNOWN_TOPIC = error_code("_UNKNOWN_TOPIC")
UNKNOWN_PARTITION = error_code("_UNKNOWN_PARTITION")


class TopicExistsError(Exception):
    """A topic exists already."""


class MissingTopicError(Exception):
    """A topic does not exist."""


def to_tieline_error(error: KafkaError | KafkaException, what: str, operation: Operation) -> TielineError:
    """Return the error of the interface for an error of Kafka, by the table in ``codes``.

    If the client is broken for good (``error.fatal()``, a fence), that is a ``RetriableError``, because its
    user creates a new client.
    """
    if isinstance(error, KafkaException):
        first = error.args[0] if error.args else None
        if not isinstance(first, KafkaError):
            return RetriableError(f"{what}: {error}")
        error = first
    name = error.name()
    fix = f". {_FIXES[name]}" if name in _FIXES else ""
    message = f"{what}: {name}: {error.str()}{fix}"
    kind = meaning(name, operation)
    if kind is Meaning.DENIED:
        return AccessDeniedError(message)
    if kind is Meaning.STOP:
        return FatalError(message)
    if kind is Meaning.UNREADABLE:
        return UnreadableError(message)
    if kind is Meaning.RECORD:
        return DataError({0: ValueError(message)})
    if kind is Meaning.REFUSED:
        kind_of_refusal = TooLargeError if name in TOO_LARGE else RefusedNowError
        return DataError({0: kind_of_refusal(message)})
    return RetriableError(message)


def poll_client(call: Callable[[float], T], timeout: float) -> T:
    """Call ``poll`` or ``flush`` of a client. Raises ``KafkaException`` if the client is broken for good.

    The client raises that while it calls our callbacks, which Python reports as a ``SystemError``.
    """
    try:
        return call(timeout)
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from None
        raise


def run_in_thread(call: Callable[[], T], name: str) -> Future[T]:
    """Start a call in a thread of its own, which does not delay the exit of the process."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - the future raises it
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def call_with_timeout(
    call: Callable[[], T], timeout: float, what: str, operation: Operation = Operation.METADATA
) -> T:
    """Call what has no time-out of its own. Raises ``RetriableError`` after ``timeout`` seconds."""
    try:
        return run_in_thread(call, what).result(timeout)
    except KafkaException as error:
        raise to_tieline_error(error, what, operation) from error
    except FutureTimeout:
        raise RetriableError(f"{what}: no answer within {timeout} s") from None
