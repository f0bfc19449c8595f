"""What is known about the records of a connector, as the status, the log and the pages show it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tieline.api import TielineError
from tieline.runtime.spool.spool import Spool
from tieline.runtime.task.ledger import skipped
from tieline.runtime.task.totals import add_up, describe, summarize
from tieline.runtime.worker.states import State
from tieline.runtime.worker.task_set import TaskSet
from tieline.runtime.worker.task_thread import TaskThread

log = logging.getLogger(__name__)


class ConnectorFailure(NamedTuple):
    """Why a connector failed as a whole, and the stats of its restarts."""

    trace: str
    restarts: Mapping[str, Any]


def connector_ledger(
    kind: str,
    state: State,
    tasks: TaskSet,
    outages: Sequence[Mapping[str, Any]],
    failure: ConnectorFailure | None,
) -> dict[str, Any]:
    """Return what is known about the records; from the spool on, the numbers add up at any moment.

    ``failure``: of the connector as a whole. Any thread may call it.
    """
    counters = tasks.counters
    out: dict[str, Any] = {
        "type": kind,
        "state": state,
        **tasks.counts._asdict(),
        "skipped": skipped(counters),
        "counters": counters,
    }
    if kind == "sink":
        out.update(_lags(tasks.threads))
        out["topics"] = summarize(tasks.totals)
        out["totals"] = add_up(out["topics"].values())
    elif views := tasks.totals:
        out["totals"] = add_up(map(describe, views.values()))
    if tasks.spools:
        out.update(_describe_spools(tasks.spools))
    if out.get("totals") is not None:
        out["mismatch"] = out["totals"]["mismatch"]
    if outages:
        out["not_connected"] = list(outages)
    out["tasks"] = described = [thread.describe() for thread in tasks.threads]
    out.update(_summarize(described if failure is None else [failure.restarts, *described]))
    own = None if failure is None else failure.trace
    traces = [trace for trace in (own, *(thread.trace for thread in tasks.threads)) if trace]
    return {**out, "trace": traces[0]} if traces else out


def _lags(threads: Sequence[TaskThread]) -> dict[str, Any]:
    """Return how many records wait for a sink, and the longest wait; ``None`` if one task does not know."""
    records = [thread.lag for thread in threads]
    seconds = [thread.lag_seconds for thread in threads]
    known = [each for each in seconds if each is not None]
    return {
        "lag": None if None in records or not records else sum(lag or 0 for lag in records),
        "lag_seconds": max(known) if known and len(known) == len(seconds) else None,
    }


def _describe_spools(spools: Mapping[Path, Spool]) -> dict[str, Any]:
    """Return what is in the spools and became of the rest, ``None`` if that cannot be read now."""
    try:
        views = [spool.view for spool in spools.values()]
    except TielineError as error:  # the disk is unavailable: no reason to stop the worker
        log.warning("the records in the spool cannot be counted now: %s", error)
        return dict.fromkeys(("spool_records", "spool_bytes", "spool_age_seconds", "totals"))
    return {
        "spool_records": sum(view.records for view in views),
        "spool_bytes": sum(view.bytes for view in views),
        "spool_age_seconds": max((view.age for view in views), default=0.0),
        "totals": add_up(describe(view.totals) for view in views),
    }


def _summarize(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the most attempts of the tasks, their earliest next one, and whether a breaker is open."""
    out: dict[str, Any] = {"attempts": max((part["attempts"] for part in parts), default=0)}
    failed = [part for part in parts if "breaker" in part]
    if failed:
        times = [part["next_attempt_ms"] for part in failed if part["next_attempt_ms"] is not None]
        out["next_attempt_ms"] = min(times, default=None)
        out["breaker"] = "open" if any(part["breaker"] == "open" for part in failed) else "closed"
    for name, first in (("last_received_ms", max), ("last_delivered_ms", max), ("waiting_since_ms", min)):
        times = [part[name] for part in parts if part.get(name) is not None]
        out[name] = first(times) if times else None
    return out
