"""From files to a plan: everything that can be wrong is found here, and told together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tieline.api import ConfigError, ConfigProblem
from tieline.api.config import Unresolved
from tieline.broker.backend import client_problems
from tieline.broker.client_secrets import secrets as client_secrets
from tieline.config.connector_check import ConnectorCheck, Reach, known_defaults, secrets_of
from tieline.config.files import read_file
from tieline.config.planned import ConnectorPlan, ConverterPlan, Plan, TransformPlan
from tieline.config.problems import Problems
from tieline.config.settings import IGNORED, PASSED_TO_CLIENTS, WorkerSettings, below
from tieline.config.unsupported import refusal
from tieline.plugins import path as plugin_path
from tieline.registry.http.server import RegistryConfig

__all__ = ["ConnectorPlan", "ConverterPlan", "Plan", "TransformPlan", "check_plan", "plan"]

_REGISTRY = "schema.registry."


def plan(worker_file: Path | None, connector_files: Sequence[Path]) -> Plan:
    """Read and check everything. Raises ``ConfigError`` with every problem of all files."""
    found = Problems()
    worker: Mapping[str, str] | None = {} if worker_file is None else _read(found, worker_file)
    files = [(str(path), _read(found, path)) for path in connector_files]
    return check_plan(
        str(worker_file or "worker"), worker, [(w, s) for w, s in files if s is not None], found.all
    )


def _read(found: Problems, path: Path) -> Mapping[str, str] | None:
    """What is in a file as far as it can be read; None: it cannot at all."""
    try:
        settings, problems = read_file(path)
    except ConfigError as error:
        found.all.extend(error.problems)
        return None
    found.all.extend(problems)
    return settings


def check_plan(
    where: str,
    worker_settings: Mapping[str, str] | None,
    connectors: Iterable[tuple[str, Mapping[str, str]]],
    so_far: Iterable[ConfigProblem] = (),
) -> Plan:
    """Check flat maps: the worker's, and ``(where, settings)`` of each connector.

    The worker's None: its file could not be read; nothing is said then of what depends on it.
    """
    found = Problems(so_far)
    known = worker_settings is not None
    given = worker_settings or {}
    plugins_known = known and not isinstance(given.get("plugin.path"), Unresolved)
    found.tried(lambda: plugin_path.activate(given.get("plugin.path", ""), where), where, "plugin.path")
    clients = _clients(given)
    own = {k: v for k, v in given.items() if not k.startswith(PASSED_TO_CLIENTS) and k not in IGNORED}
    converters = {k: v for k, v in own.items() if k.startswith(("key.converter.", "value.converter."))}
    served = below("schema.registry", own)
    registry = _registry_served(found, where, served) if served.pop("url", "") == "embedded" else None
    passed_on = {*converters, *(f"{_REGISTRY}{key}" for key in served if registry is not None)}
    for key in own:
        if reason := refusal(key, of_worker=True):
            found.add(ConfigProblem(where, key, reason))
            passed_on.add(key)
    worker, wrong = WorkerSettings.check({k: v for k, v in own.items() if k not in passed_on}, where)
    found.extend(wrong, where)
    reach = Reach(where, worker, converters, clients if own.get("bootstrap.servers") else None, plugins_known)
    if reach.clients is not None:
        wrong = client_problems(reach.clients)
        found.extend(wrong, where)
        if wrong:  # told once; what the connectors override is looked at without them
            reach = reach._replace(clients={})
    reach = reach._replace(defaults=known_defaults(found, reach, own) if known else {})
    ignored = {k: IGNORED[k] for k in given if k in IGNORED}
    plans: list[ConnectorPlan] = []
    names: dict[str, str] = {}
    for place, settings in connectors:
        ignored |= {k: IGNORED[k] for k in settings if k in IGNORED}
        name = settings.get("name", "")
        if name and name in names:
            found.add(ConfigProblem(place, "name", f"{name!r} is also the name in {names[name]}"))
        names.setdefault(name, place)
        planned = ConnectorCheck(found, reach, place, settings).connector()
        if planned is not None:
            plans.append(planned)
    found.report()
    configs = [
        config
        for p in plans
        for config in (p.config, p.key.config, p.value.config, *(t.config for t in p.transforms))
    ]
    secrets = [secret for config in configs for secret in secrets_of(config)]
    passed = [clients, *(part for p in plans for part in (p.value.registry, p.key.registry, p.overrides))]
    secrets += [secret for part in passed for secret in client_secrets(part)]
    return Plan(worker, clients, plans, ignored, secrets, registry)


def _clients(worker: Mapping[str, str]) -> dict[str, str]:
    """The worker's settings for Kafka's clients; librdkafka knows no ``~``."""
    return {
        key: os.path.expanduser(value) if key.endswith(".location") else value
        for key, value in worker.items()
        if key.startswith(PASSED_TO_CLIENTS) and not isinstance(value, Unresolved)
    }


def _registry_served(found: Problems, where: str, settings: Mapping[str, str]) -> RegistryConfig:
    """How the worker serves its broker's schemas to others."""
    try:
        return RegistryConfig.parse(settings)
    except ConfigError as error:
        found.extend(error.problems, where, _REGISTRY)
    return RegistryConfig.parse({})
