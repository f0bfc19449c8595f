"""What the runtime does about an error of Kafka: decided here, once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

from tieline.api import DataError, Fatal, Retriable, TielineError

T = TypeVar("T")

_RECORD = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_MSG_SIZE,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError._UNKNOWN_PARTITION,
}
"""The record itself can never be written: too large, refused by the broker's checks, no such partition."""

_STOP = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.POLICY_VIOLATION,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_GROUP_ID,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError._INVALID_ARG,
}
"""Waiting will not help: credentials, rights, settings."""


def translated(error: KafkaError | KafkaException, what: str) -> TielineError:
    """Everything that is neither the record's fault nor a person's is ``Retriable``.

    So is a client that broke for good (``error.fatal()``, a fence): whoever uses it makes a new one.
    """
    if isinstance(error, KafkaException):
        first = error.args[0] if error.args else None
        if not isinstance(first, KafkaError):
            return Retriable(f"{what}: {error}")
        error = first
    message = f"{what}: {error.name()}: {error.str()}"
    if error.code() in _STOP:
        return Fatal(message)
    if error.code() in _RECORD:
        return DataError({0: ValueError(message)})
    return Retriable(message)


def served(call: Callable[[float], T], timeout: float) -> T:
    """``poll`` or ``flush``. Raises ``KafkaException`` when the client broke for good.

    The client raises it while it calls our callbacks; Python then calls it a ``SystemError`` of theirs.
    """
    try:
        return call(timeout)
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from None
        raise


def begun(call: Callable[[], T], name: str) -> Future[T]:
    """A call in a thread of its own, which ends when it will and holds up nobody's exit."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def bounded(call: Callable[[], T], timeout: float, what: str) -> T:
    """A call of the client that has no time-out of its own. Raises ``Retriable`` after ``timeout``."""
    return answer(begun(call, what), timeout, what)


def answer(future: Future[T], timeout: float, what: str) -> T:
    """What a call has begun to find out. Raises ``Retriable`` after ``timeout``."""
    try:
        return future.result(timeout)
    except KafkaException as error:
        raise translated(error, what) from error
    except FutureTimeout:
        raise Retriable(f"{what}: no answer within {timeout} s") from None
