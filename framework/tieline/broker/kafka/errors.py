"""What the runtime does about an error of Kafka: decided here, once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

from tieline.api import AccessDeniedError, DataError, FatalError, RetriableError, TielineError
from tieline.broker.kafka.codes import Meaning, Operation, meaning
from tieline.broker.port import RefusedNowError, UnreadableError

T = TypeVar("T")

_FIXES = {
    "INVALID_TIMESTAMP": "Check this machine's clock and the topic's message.timestamp.after.max.ms",
    "MSG_SIZE_TOO_LARGE": "Raise the topic's max.message.bytes, or filter the record with a transform",
    "TOPIC_AUTHORIZATION_FAILED": "Grant this principal the right to read or write the topic",
    "GROUP_AUTHORIZATION_FAILED": "Grant this principal the right to read the group",
}


def error_code(name: str) -> int:
    """Return the number of an error. The names of librdkafka's own begin with an underscore."""
    return int(getattr(KafkaError, name))


PARTITION_EOF = error_code("_PARTITION_EOF")
UNKNOWN_TOPIC = error_code("_UNKNOWN_TOPIC")
UNKNOWN_PARTITION = error_code("_UNKNOWN_PARTITION")


def to_tieline_error(error: KafkaError | KafkaException, what: str, operation: Operation) -> TielineError:
    """Return the error of the port for an error of Kafka, by the table in ``codes``.

    A client that broke for good (``error.fatal()``, a fence) is ``RetriableError``: its user makes a new one.
    """
    if isinstance(error, KafkaException):
        first = error.args[0] if error.args else None
        if not isinstance(first, KafkaError):
            return RetriableError(f"{what}: {error}")
        error = first
    name = error.name()
    fix = f". {_FIXES[name]}" if name in _FIXES else ""
    message = f"{what}: {name}: {error.str()}{fix}"
    means = meaning(name, operation)
    if means is Meaning.DENIED:
        return AccessDeniedError(message)
    if means is Meaning.STOP:
        return FatalError(message)
    if means is Meaning.UNREADABLE:
        return UnreadableError(message)
    if means is Meaning.RECORD:
        return DataError({0: ValueError(message)})
    if means is Meaning.REFUSED:
        return DataError({0: RefusedNowError(message)})
    return RetriableError(message)


def poll_client(call: Callable[[float], T], timeout: float) -> T:
    """``poll`` or ``flush``. Raises ``KafkaException`` when the client broke for good.

    The client raises it while it calls our callbacks; Python then calls it a ``SystemError`` of theirs.
    """
    try:
        return call(timeout)
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from None
        raise


def run_in_thread(call: Callable[[], T], name: str) -> Future[T]:
    """A call in a thread of its own, which ends when it will and holds up nobody's exit."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def call_with_timeout(
    call: Callable[[], T], timeout: float, what: str, operation: Operation = Operation.METADATA
) -> T:
    """A call of the client that has no time-out of its own. Raises ``RetriableError`` after ``timeout``."""
    return answer(run_in_thread(call, what), timeout, what, operation)


def answer(future: Future[T], timeout: float, what: str, operation: Operation = Operation.METADATA) -> T:
    """What a call has begun to find out. Raises ``RetriableError`` after ``timeout``."""
    try:
        return future.result(timeout)
    except KafkaException as error:
        raise to_tieline_error(error, what, operation) from error
    except FutureTimeout:
        raise RetriableError(f"{what}: no answer within {timeout} s") from None
