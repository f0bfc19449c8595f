"""The tree of errors; each leaf determines what the runtime does.

    TielineError
    ├── StartupError           nothing starts; every problem is reported at once
    │   ├── ConfigError        a list of problems: file, key, problem, fix
    │   ├── PluginError        an unknown, broken or duplicate plugin
    │   └── DataDirInUseError  another worker uses this data folder
    ├── RetriableError         the external system is unavailable: wait, offer the same batch again
    ├── DataError              these records can never be handled: dead-letter them or stop
    ├── RecordError            why one of them cannot: a cause in a DataError
    └── FatalError             the task stops; an operator has to act
        ├── AccessDeniedError  the broker denies access until an operator changes something: wait
        └── FencedError        another owner has taken over what this task owned

Anything else that a connector raises is a bug in the connector and is treated as FatalError.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tieline.api.record import TopicPartition


class TielineError(Exception):
    """The root of every error that tieline raises on purpose."""


class StartupError(TielineError):
    """Nothing was started; the message says what to change."""


class ConfigProblem(NamedTuple):
    """One problem of a configuration: file or connector, key, and a message with the fix."""

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        """Return one line: ``where: key: message``."""
        return ": ".join(part for part in self if part)


class ConfigError(StartupError):
    """All problems of the configuration, reported at once before the first record."""

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        title = "1 problem" if count == 1 else f"{count} problems"
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{title} in the configuration:\n{lines}")


class PluginError(StartupError):
    """A plugin is unknown, broken or installed twice; the message names distribution and cause."""


class DataDirInUseError(StartupError):
    """Another worker uses this data folder; the message names its process id."""


class RetriableError(TielineError):
    """The external system is unavailable, but the records are valid. The runtime waits and retries.

    ``after`` is the earliest retry in seconds; ``None`` means the runtime's exponential backoff.
    ``partitions`` are those whose records were not written; all others of the batch were. Without it no
    record of the batch counts as written, and all are offered again, except records before the offsets in
    ``reached``: these were written.
    """

    def __init__(
        self,
        message: str,
        *,
        after: float | None = None,
        partitions: Collection[TopicPartition] | None = None,
        reached: Mapping[TopicPartition, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.after = after
        self.partitions = None if partitions is None else frozenset(partitions)
        self.reached = dict(reached or {})


class DataError(TielineError):
    """Some records can never be handled, however often they are retried.

    ``failures`` maps an index in the batch to its cause. **All other records were handled**: raise it only
    after the rest of the batch is done.
    """

    def __init__(self, failures: Mapping[int, Exception]) -> None:
        self.failures = dict(failures)
        first = min(self.failures, default=None)
        cause = "" if first is None else f"; record {first} of the batch: {self.failures[first]}"
        super().__init__(f"{len(self.failures)} record(s) cannot be handled{cause}")


class RecordError(TielineError, ValueError):
    """Why one record can never be handled: a cause in ``DataError.failures``, with what an operator needs.

    ``field`` is the path of the field that is wrong, such as ``points.temperature``. ``expected`` is what the
    field should have been, and ``fix`` what an operator can do, both in words. Letters with one field are one
    group in the dead letter queue. Any other exception is possible as a cause, too.
    """

    def __init__(self, message: str, *, field: str = "", expected: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.expected = expected
        self.fix = fix


class FatalError(TielineError):
    """The task cannot continue, and waiting within it does not help: wrong credentials, a missing right.

    The task stops. The runtime restarts it after a delay, because an operator may have removed the cause.
    """


class AccessDeniedError(FatalError):
    """The broker denies access because of credentials, rights or its settings.

    A command of the program ends with it. A task waits, because an operator can change the cause.
    """


class FencedError(FatalError):
    """Another owner has taken over; nothing was written, and this owner cannot write any more.

    The task stops, and is not restarted.
    """
