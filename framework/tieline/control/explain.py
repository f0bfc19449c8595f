"""Why a connector makes no progress, in words, with figures and the fix. Pure.

The findings are ordered: the root cause first, its consequences behind it. A connector that waits for its
store also has a backlog; the store is what an operator has to look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from tieline.runtime.errors.traces import split_trace
from tieline.times import iso_ms, span_text

SILENT = 60.0
"""Seconds without a record from which a connector counts as silent."""
BEHIND = 300.0
"""Seconds from which a backlog is a warning."""

_WINDOW = "errors.tolerance.window"
"""What the cause of a task names that has exceeded its window of dead letters."""


Severity: TypeAlias = Literal["critical", "warning", "info"]


class Finding(NamedTuple):
    """One answer. ``kind`` is stable. ``fix`` is empty if nothing needs to be done.

    ``since_ms``: since when it is so, in ms since 1970; ``None`` if that is unknown.
    """

    kind: str
    severity: Severity
    text: str
    fix: str = ""
    since_ms: int | None = None


class Observed(NamedTuple):
    """What is known about a connector; times in ms since 1970.

    ``ledger``: the connector's part of the last status, ``None`` if it has none. ``running``: whether the
    worker that wrote it lives. ``started_ms``, ``written_ms``: of that worker and its status. ``broker``: the
    broker's name in outages. ``interval``: seconds between two statuses. ``waiting``: how many records the
    broker has that a sink has not committed. ``broker_problem``: why the broker does not answer now.
    """

    now_ms: int
    ledger: Mapping[str, Any] | None
    running: bool = True
    started_ms: int | None = None
    written_ms: int | None = None
    broker: str = ""
    interval: float = 10.0
    waiting: int | None = None
    broker_problem: str | None = None

    def seconds_since(self, time_ms: int | None) -> float | None:
        """Return how long ago a time is; ``None`` if it is unknown."""
        return None if time_ms is None else max(0.0, (self.now_ms - time_ms) / 1000)

    def ago(self, time_ms: int | None) -> str:
        """Return how long ago a time is, as text."""
        seconds = self.seconds_since(time_ms)
        return "an unknown time" if seconds is None else span_text(seconds)


def explain(observed: Observed) -> list[Finding]:
    """Return what keeps a connector from making progress, the root cause first; else that it works."""
    ledger = observed.ledger
    if ledger is None:
        return [*_broker(observed), *_never_ran(observed)]
    if not observed.running:
        return [*_ended(observed, ledger), *_broker(observed), *_failures(observed, ledger)]
    causes = [*_paused(ledger), *_broker(observed), *_outages(observed, ledger)]
    causes += _failures(observed, ledger)
    if not causes:
        causes += _partitions(ledger)
    backlog = list(_backlog(observed, ledger, is_explained=bool(causes)))
    findings = [*causes, *backlog, *_mismatch(ledger)]
    if not findings:
        findings += _silence(observed, ledger)
    if not any(finding.severity != "info" for finding in findings):
        findings += _works(observed, ledger)
    return [*_stale(observed), *findings]


def _never_ran(observed: Observed) -> Iterator[Finding]:
    waiting = "" if not observed.waiting else f" {observed.waiting} records wait for it."
    yield Finding(
        "worker_not_running",
        "critical",
        f"No worker on this folder runs the connector, or ran it lately.{waiting}",
        "Start a worker with the connector's file: tieline run WORKER CONNECTOR.",
    )


def _ended(observed: Observed, ledger: Mapping[str, Any]) -> Iterator[Finding]:
    state = ledger.get("state")
    waiting = observed.waiting if ledger.get("type") == "sink" else ledger.get("spool_records")
    rest = f" {waiting} records wait." if waiting else ""
    yield Finding(
        "worker_not_running",
        "critical",
        f"The worker does not run. It wrote its last status {observed.ago(observed.written_ms)} ago; the "
        f"connector was {state} then.{rest}",
        "Start the worker; the end of its log says why it stopped.",
        observed.written_ms,
    )


def _stale(observed: Observed) -> Iterator[Finding]:
    age = observed.seconds_since(observed.written_ms)
    if age is not None and age > 3 * observed.interval + 5:
        yield Finding(
            "status_old",
            "warning",
            f"The worker has written no status for {span_text(age)}: what follows is that old. It may be "
            "stopped, overloaded, or unable to write to data.dir.",
            "Look at the worker's process, its log and the free space of its disk.",
            observed.written_ms,
        )


def _paused(ledger: Mapping[str, Any]) -> Iterator[Finding]:
    if ledger.get("state") == "PAUSED":
        yield Finding("paused", "warning", "An operator has paused the connector.", "Resume it.")


def _broker(observed: Observed) -> Iterator[Finding]:
    if observed.broker_problem is not None:
        text = f"The broker does not answer: {_sentence(observed.broker_problem)}"
        yield Finding("broker_unavailable", "critical", text, _FIXES["broker_unavailable"])


_FIXES = {
    "broker_unavailable": "Check that the broker runs, and that this machine reaches it. Records wait; the "
    "worker connects again by itself.",
    "registry_unavailable": "Check the schema registry. Records wait; the worker connects again by itself.",
    "topic_missing": "Create the topic, or correct the topics in the connector's file.",
    "store_unavailable": "Check the store that the sink writes to. Records wait in their topics; the worker "
    "tries again by itself.",
    "not_connected": "Check the system that the source reads. The worker tries again by itself.",
}


def _outages(observed: Observed, ledger: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what is unavailable: the broker first, because other outages may follow from its own."""
    order = list(_FIXES)
    external = "store_unavailable" if ledger.get("type") == "sink" else "not_connected"
    kinds = [(_kind(outage, observed.broker, external), outage) for outage in ledger.get("not_connected", ())]
    for kind, outage in sorted(kinds, key=lambda each: (order.index(each[0]), each[1]["since"])):
        since_ms = iso_ms(outage["since"])
        if kind == "broker_unavailable" and observed.broker_problem is not None:
            continue  # reported already
        text = f"Not connected to {outage['to']} for {observed.ago(since_ms)}: {_sentence(outage['because'])}"
        severity: Severity = "critical" if kind == "topic_missing" else "warning"
        yield Finding(kind, severity, text, _FIXES[kind], since_ms)


def _kind(outage: Mapping[str, Any], broker: str, external: str) -> str:
    to = str(outage["to"])
    if to == broker or to.startswith("the broker"):
        return "broker_unavailable"
    if to.startswith("the schema registry"):
        return "registry_unavailable"
    return "topic_missing" if to.startswith(("the topic ", "topics.regex ")) else external


def _failures(observed: Observed, ledger: Mapping[str, Any]) -> list[Finding]:
    """Return the failures, those that no restart helps first."""
    if ledger.get("state") not in ("FAILED", "RESTARTING"):
        return []
    parts = [task for task in ledger.get("tasks", ()) if task.get("state") in ("FAILED", "RESTARTING")]
    findings = [_failure(observed, task, _name(task)) for task in parts]
    if not findings:  # the connector as a whole
        cause = split_trace(str(ledger.get("trace", "no reason was given")))[0]
        findings = [_failure(observed, {**ledger, "cause": cause}, "The connector")]
    return sorted(findings, key=lambda finding: finding.severity != "critical")


def _failure(observed: Observed, part: Mapping[str, Any], name: str) -> Finding:
    cause = _sentence(str(part.get("cause", "no reason was given")))
    attempts, due = part.get("attempts", 0), part.get("next_attempt_ms")
    until = "" if due is None else span_text(max(0.0, (due - observed.now_ms) / 1000))
    if part["state"] == "RESTARTING":
        text = f"{name} has failed and restarts in {until} (restart {attempts + 1}): {cause}"
        return Finding("restarting", "warning", text, "If the cause does not pass by itself, correct it.")
    if part.get("breaker") == "open":
        wait = "until the worker is restarted" if due is None else f"for another {until}"
        text = f"{name} has failed; after {attempts} restarts its breaker is open {wait}: {cause}"
        fix = "Correct the cause. To try at once, restart the worker."
        return Finding("breaker_open", "critical", text, fix)
    if _WINDOW in cause:
        text = f"{name} has stopped, because too many records became dead letters: {cause}"
        fix = "Correct the converter, the transform or the records' producer, then restart the worker."
        return Finding("dead_letter_window", "critical", text, fix)
    text = f"{name} has failed, and is not restarted: {cause}"
    return Finding("failed", "critical", text, "Correct the cause, then restart the worker.")


def _name(task: Mapping[str, Any]) -> str:
    role = task.get("role")
    which = f" ({role})" if role in ("receiver", "pump") else ""
    return f"Task {task.get('task')}{which}"


def _partitions(ledger: Mapping[str, Any]) -> Iterator[Finding]:
    running = [task for task in ledger.get("tasks", ()) if task.get("state") == "RUNNING"]
    if ledger.get("type") == "sink" and running and not any(task.get("partitions") for task in running):
        yield Finding(
            "no_partitions",
            "warning",
            "The sink owns no partition: its consumer group rebalances, has revoked them, or has given all "
            "of them to other members.",
            "Wait for a minute. If it stays so, look for another worker with a connector of this name, or "
            "stop members that are more than the topics have partitions.",
        )


def _backlog(observed: Observed, ledger: Mapping[str, Any], is_explained: bool) -> Iterator[Finding]:
    """Yield what waits, and whether it moves. ``is_explained``: the cause is known."""
    lag = ledger.get("lag")
    waiting = ledger.get("spool_records") if ledger.get("type") == "source" else lag
    if waiting is None:
        waiting = observed.waiting
    if not waiting:
        return
    seconds = ledger.get("lag_seconds")
    age = "" if seconds is None else f", the oldest for {span_text(seconds)}"
    idle = observed.seconds_since(ledger.get("last_delivered_ms") or observed.started_ms)
    last = "" if idle is None else f" The last delivery was {span_text(idle)} ago."
    if ledger.get("last_delivered_ms") is None:
        last = " Nothing was delivered since the worker started."
    if not is_explained and _is_stalled(observed, ledger):
        yield Finding(
            "stalled",
            "warning",
            f"{waiting} records wait{age}, and nothing is reported as unavailable.{last}",
            "A call may hang, or one batch may take long: see the log of the worker, and the external "
            "system's own.",
            ledger.get("last_delivered_ms"),
        )
        return
    is_behind = seconds is not None and seconds >= BEHIND
    fix = "" if is_explained else "If it grows, add tasks (tasks.max) or workers, or speed up the store."
    text = f"{waiting} records wait{age}.{last}"
    yield Finding("backlog", "warning" if is_behind or is_explained else "info", text, fix)


def _is_stalled(observed: Observed, ledger: Mapping[str, Any]) -> bool:
    """Return whether records wait that nothing has moved for a while, as far as the times show."""
    oldest = ledger.get("lag_seconds")
    if oldest is not None and oldest <= SILENT:
        return False
    if ledger.get("waiting_since_ms") is not None:
        times = [ledger["waiting_since_ms"]]
    else:  # what waits came before the start, or is not even read
        times = [ledger.get("last_received_ms"), ledger.get("last_delivered_ms"), observed.started_ms]
    idle = observed.seconds_since(max((time for time in times if time is not None), default=None))
    return idle is not None and idle > SILENT


def _silence(observed: Observed, ledger: Mapping[str, Any]) -> Iterator[Finding]:
    last = ledger.get("last_received_ms")
    silent = observed.seconds_since(observed.started_ms if last is None else last)
    if silent is None or silent < SILENT:
        return
    what = "its topics have had no new record" if ledger.get("type") == "sink" else "nothing has arrived"
    since = " since the worker started" if last is None else ""
    text = f"There is no data: {what} for {span_text(silent)}{since}. Nothing waits."
    check = "the producers of its topics" if ledger.get("type") == "sink" else "the system that it reads"
    fix = f"If records are expected, check {check} and the connector's settings of what it reads."
    yield Finding("no_data", "info", text, fix, last)


def _mismatch(ledger: Mapping[str, Any]) -> Iterator[Finding]:
    if mismatch := ledger.get("mismatch"):
        yield Finding(
            "mismatch",
            "critical",
            f"The ledger differs by {mismatch} records from what has been passed: records may be missing, or"
            " are counted twice.",
            "Compare the store with the topic; the worker's log names the partition.",
        )


def _works(observed: Observed, ledger: Mapping[str, Any]) -> Iterator[Finding]:
    received, delivered = ledger.get("received", 0), ledger.get("delivered", 0)
    last = ledger.get("last_delivered_ms")
    when = "It runs" if last is None else f"It works: the last delivery was {observed.ago(last)} ago"
    text = f"{when}. {delivered} of {received} received records are delivered."
    yield Finding("working", "info", text, "", last)


def _sentence(text: str) -> str:
    """Return a text as one line that ends in one full stop."""
    line = " ".join(text.split())
    return line if line.endswith((".", "!", "?")) else f"{line}."
