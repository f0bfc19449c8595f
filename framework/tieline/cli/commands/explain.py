"""``tieline explain``: why a connector makes no progress."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tieline.api import StartupError
from tieline.cli.connection import CALL_TIMEOUT, AsJson, BrokerOptions, WorkerFile, required, short_calls
from tieline.times import local_time
from tieline.topics.printable import printable

if TYPE_CHECKING:
    from tieline.config.plan import Plan
    from tieline.control.explain import Observed


def explain(
    connector: Annotated[str, typer.Argument(help="The connector's name.")],
    worker: WorkerFile = None,
    as_json: AsJson = False,
) -> None:
    """Say why a connector makes no progress, with figures and the fix.

    Reads the status of the worker, which may be running, and asks the broker; changes nothing. The root cause
    comes first, its consequences behind it. Exit status: 0; 2 if the connector is unknown.
    """
    from tieline.control.explain import explain as find

    observed = observe(connector, BrokerOptions(required(worker)))
    findings = find(observed)
    if as_json:
        typer.echo(json.dumps({"connector": connector, "findings": [each._asdict() for each in findings]}))
        return
    for finding in findings:
        since = (
            "" if finding.since_ms is None else f" (since {local_time(finding.since_ms, observed.now_ms)})"
        )
        mark = {"critical": "✖", "warning": "▲", "info": "●"}[finding.severity]
        typer.echo(f"{mark} {printable(finding.text)}{since}")
        if finding.fix:
            typer.echo(f"  → {printable(finding.fix)}")


def observe(connector: str, options: BrokerOptions) -> Observed:
    """Return what the status of the worker and the broker say about a connector.

    Raises ``StartupError`` if neither knows it.
    """
    from tieline.config.plan import check_plan
    from tieline.control.explain import Observed
    from tieline.runtime.worker.status_file import statuses

    where, settings = options.settings()
    plan = check_plan(where, settings, [])
    workers = list(statuses(plan.worker.data_dir))
    known = {name for status in workers for name in _connectors(status)}
    mine = [status for status in workers if connector in _connectors(status)]
    latest = max(mine, key=lambda each: (each["running"], each.get("written") or 0), default=None)
    ledger = None if latest is None else _connectors(latest)[connector]
    waiting, problem = None, None
    if ledger is None or ledger.get("type") == "sink":
        waiting, problem = _ask_broker(plan, settings, connector)
    if ledger is None and waiting is None and problem is None:
        names = f"; known are {', '.join(sorted(known))}" if known else ""
        raise StartupError(
            f"no worker in {plan.worker.data_dir} has run a connector {connector}, and it has no "
            f"offsets{names}"
        )
    status = latest or {}
    return Observed(
        time.time_ns() // 1_000_000,
        ledger,
        bool(status.get("running")),
        status.get("started"),
        status.get("written"),
        str(status.get("broker", "")),
        plan.worker.progress_interval_ms / 1000,
        waiting,
        problem,
    )


def _ask_broker(plan: Plan, settings: Mapping[str, str], connector: str) -> tuple[int | None, str | None]:
    """Return how many records a sink has not committed, and why the broker does not answer, if so."""
    from tieline.api import TielineError
    from tieline.broker.backend import silence_clients
    from tieline.broker.client_secrets import secrets
    from tieline.control.offsets import ConnectorOffsets
    from tieline.logs import Redaction

    redaction = Redaction()
    redaction.add(secrets(settings))
    silence_clients()
    backend = short_calls(plan.backend)
    if backend.is_missing:
        return None, None
    try:
        with closing(backend.open(owner=False)) as broker:
            rows = ConnectorOffsets(broker.offsets, connector, CALL_TIMEOUT).sink_offsets()
    except TielineError as error:
        return None, str(redaction.clean(f"{backend.name}: {error}"))
    lags = [row.lag for row in rows if row.lag is not None]
    return sum(lags) if lags else None, None


def _connectors(status: Mapping[str, Any]) -> Mapping[str, Any]:
    connectors = status.get("connectors")
    return connectors if isinstance(connectors, dict) else {}
