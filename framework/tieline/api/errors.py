"""One error tree; each leaf answers what the runtime will do.

    TielineError
    ├── StartupError         nothing starts; all that is wrong is told together
    │   ├── ConfigError       a list of problems: where, which key, what is wrong, the way out
    │   ├── PluginError       unknown, broken or doubled plugin
    │   └── DataDirInUseError      another worker owns this data folder
    ├── RetriableError             the outside is unavailable: wait, offer the same batch again
    ├── DataError             these records can never be handled: dead-letter them or stop
    └── FatalError                 the task stops; a person has to look
        ├── AccessDeniedError            the broker refuses, until an operator changes something: wait
        └── FencedError            somebody else has taken over what this task owned

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
    """One thing wrong in a configuration: where (file or connector), which key, what, and the way out."""

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        """One line: ``where: key: message``."""
        return ": ".join(part for part in self if part)


class ConfigError(StartupError):
    """Every problem found in the configuration, reported together before the first record."""

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        title = "1 problem" if count == 1 else f"{count} problems"
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{title} in the configuration:\n{lines}")


class PluginError(StartupError):
    """A plugin that is unknown, broken, or there twice; the message names the distribution and the cause."""


class DataDirInUseError(StartupError):
    """Another worker owns this data folder; the message gives its process id."""


class RetriableError(TielineError):
    """The outside is unavailable, the records are fine. Raised by tasks; the runtime waits and tries again.

    ``after`` seconds is the earliest retry (none: the runtime's exponential backoff). ``partitions``
    names the topic partitions whose records of the batch were not written; all others of the batch
    were. Without it nothing of the batch counts as written and all of it is offered again, but for what
    lies before the offsets in ``reached``: of these partitions the records up to there were written.
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
    """Some records can never be handled, however often they are tried.

    ``failures`` maps the index in the batch that was handed over to its cause. **Every index that is
    not named was handled**: raise only after the rest of the batch is done.
    """

    def __init__(self, failures: Mapping[int, Exception]) -> None:
        self.failures = dict(failures)
        first = min(self.failures, default=None)
        cause = "" if first is None else f"; record {first} of the batch: {self.failures[first]}"
        super().__init__(f"{len(self.failures)} record(s) cannot be handled{cause}")


class FatalError(TielineError):
    """The task cannot go on, and waiting will not help: wrong credentials, a missing right, a lost fence."""


class AccessDeniedError(FatalError):
    """The broker refuses this now: credentials, a right, one of its settings.

    A command of the program ends with it; a task waits, because an operator can change the cause.
    """


class FencedError(FatalError):
    """Somebody else has taken over; nothing was written, and nothing of this owner's ever will be."""
