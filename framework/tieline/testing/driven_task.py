"""A task under test: one thread makes all of its calls, as in the runtime, and each has a time limit."""

from __future__ import annotations

import faulthandler
import queue
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Any

import pytest

from tieline.api import TielineError

_HINT = {
    "start": "start never waits for the external system; raise RetriableError and the runtime calls again",
    "poll": "poll returns after max_wait, and soon after interrupt",
    "put": "put never sleeps or retries; raise RetriableError and the runtime offers the batch again",
    "flush": "flush never retries; raise RetriableError and the runtime calls again",
    "pre_commit": "pre_commit never retries; raise RetriableError and the runtime calls again",
    "interrupt": "interrupt only sets a flag or wakes a waiting call; it waits for nothing",
    "stop": "stop releases all resources without waiting for the external system",
}

_RAISES = {
    "poll": "in an outage poll raises RetriableError; where waiting cannot help, FatalError",
    "put": "put raises RetriableError in an outage, DataError for bad records",
    "flush": "flush raises RetriableError in an outage, DataError for bad records",
    "pre_commit": "pre_commit raises RetriableError in an outage, DataError for bad records",
    "start": "start raises RetriableError in an outage; where waiting cannot help, FatalError",
    "commit_record": "commit_record takes every record, with metadata None if a transform filtered it",
    "open": "open takes any partitions, also while the task has others",
    "close": "close takes any partitions that were opened, also those without a record",
    "interrupt": "interrupt never fails, also if start failed or was never called",
    "stop": "stop never fails, also if start failed or was never called",
}


class UnexpectedError(AssertionError):
    """A call of the task raised what no task may raise: the runtime takes it for a bug, and stops."""

    def __init__(self, name: str, error: BaseException) -> None:
        promise = _RAISES.get(name, "raise RetriableError in an outage, FatalError if waiting cannot help")
        super().__init__(f"{name} raised {type(error).__name__}: {error}. The task would stop: {promise}")
        self.error = error


class DrivenTask:
    """A source or sink task, made and called in a thread of its own.

    Every method of the task can be called here; the call runs in the task's thread, ``interrupt`` in
    another one. ``limit``: seconds after which a call that has not returned fails the test.
    """

    def __init__(self, make: Callable[[], Any], context: Any, limit: float) -> None:
        self.context = context
        self.limit = limit
        self.hung = ""
        self.after_call: Callable[[], None] = lambda: None
        """Called after each call that returned or raised."""
        self._calls: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...], Future[Any]] | None]
        self._calls = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="task under test", daemon=True)
        self._thread.start()
        self.task = self._result("the constructor", self._submit(make, ()))

    def __getattr__(self, name: str) -> Any:
        """Return a method of the task that runs in its thread; other attributes as they are."""
        attribute = getattr(self.task, name)
        if not callable(attribute):
            return attribute

        def call(*arguments: Any) -> Any:
            try:
                return self._result(name, self.begin(name, *arguments))
            finally:
                self.after_call()

        return call

    def begin(self, name: str, *arguments: Any) -> Future[Any]:
        """Begin a call in the task's thread, and return at once."""
        if self.hung:
            pytest.fail(f"{name} cannot be called: {self.hung} has not returned")
        return self._submit(getattr(self.task, name), arguments)

    def interrupt(self, limit: float | None = None) -> None:
        """Call ``interrupt`` from another thread, as the worker does, and expect it to return at once."""
        answer: Future[Any] = Future()
        arguments = (self.task.interrupt, (), answer)
        threading.Thread(target=_answer, args=arguments, name="interrupting", daemon=True).start()
        self._result("interrupt", answer, limit)

    def end(self) -> None:
        """Let the thread end; called after ``stop``."""
        self._calls.put(None)
        self._thread.join(1.0)

    def _submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        answer: Future[Any] = Future()
        self._calls.put((function, arguments, answer))
        return answer

    def _result(self, name: str, answer: Future[Any], limit: float | None = None) -> Any:
        limit = self.limit if limit is None else limit
        started = time.monotonic()
        with suppress(FutureTimeoutError):
            answer.exception(limit)
        if answer.done():
            error = answer.exception()
            if error is None:
                return answer.result()
            if isinstance(error, TielineError):
                raise error
            raise UnexpectedError(name, error) from error
        if name != "interrupt":
            self.hung = name
        waited = time.monotonic() - started
        hint = _HINT.get(name, "each call returns soon, or raises an error")
        pytest.fail(f"{name} did not return within {waited:.1f} s: {hint}. It is here:\n{_stacks()}")

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            _answer(*call)
            del call  # or the last batch lives as long as the thread


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...], answer: Future[Any]) -> None:
    try:
        result = function(*arguments)
    except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
        answer.set_exception(error)
    else:
        answer.set_result(result)


def _stacks() -> str:
    """Return where all threads are now; the stuck one is among them."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        threads = file.read().split("\n\n")
    return "\n\n".join(text for text in threads if "driven_task.py" in text and " in _answer" in text)
