"""From files to a plan: every problem of the configuration is found here, and reported together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tieline.api import ConfigError, ConfigProblem
from tieline.api.config import Unresolved
from tieline.broker.backend import client_problems
from tieline.broker.client_secrets import secrets as client_secrets
from tieline.config.connector_check import ConnectorCheck, WorkerContext, check_default_converters, secrets_of
from tieline.config.files import read_file
from tieline.config.listener import PREFIX as LISTENER_PREFIX
from tieline.config.listener import WorkerListener, listener_settings
from tieline.config.planned import ConnectorPlan, ConverterPlan, Plan, SinkPlan, SourcePlan, TransformPlan
from tieline.config.problems import Problems
from tieline.config.schema_registry import registry_settings
from tieline.config.settings import WorkerSettings
from tieline.config.split import below
from tieline.config.unsupported import IGNORED, PASSED_TO_CLIENTS, refusal
from tieline.plugins import path as plugin_path
from tieline.registry.http.server import RegistryConfig

__all__ = [
    "ConnectorPlan",
    "ConverterPlan",
    "Plan",
    "SinkPlan",
    "SourcePlan",
    "TransformPlan",
    "check_plan",
    "plan",
]

_REGISTRY = "schema.registry."


def plan(worker_file: Path | None, connector_files: Sequence[Path]) -> Plan:
    """Read and check everything. Raises ``ConfigError`` with every problem of all files."""
    problems = Problems()
    worker: Mapping[str, str] | None = {} if worker_file is None else _read(problems, worker_file)
    files = [(str(path), _read(problems, path)) for path in connector_files]
    readable = [(where, settings) for where, settings in files if settings is not None]
    return check_plan(str(worker_file or "worker"), worker, readable, problems.all)


def check_plan(
    where: str,
    worker_settings: Mapping[str, str] | None,
    connectors: Iterable[tuple[str, Mapping[str, str]]],
    so_far: Iterable[ConfigProblem] = (),
) -> Plan:
    """Check flat maps: the worker's, and ``(where, settings)`` of each connector. Raises ``ConfigError``.

    ``worker_settings`` is ``None`` if the worker's file could not be read; nothing is reported then about
    what depends on it.
    """
    problems = Problems(so_far)
    given = worker_settings or {}
    worker = _WorkerCheck(problems, where, given, known=worker_settings is not None)
    context, registry = worker.context(), worker.registry
    ignored = {key: IGNORED[key] for key in given if key in IGNORED}
    plans: list[ConnectorPlan] = []
    places: dict[str, str] = {}
    for place, settings in connectors:
        ignored |= {key: IGNORED[key] for key in settings if key in IGNORED}
        name = settings.get("name", "")
        if name and name in places:
            problems.add(ConfigProblem(place, "name", f"{name!r} is also the name in {places[name]}"))
        places.setdefault(name, place)
        planned = ConnectorCheck(problems, context, place, settings).check()
        if planned is not None:
            plans.append(planned)
    problems.report()
    secrets = _secrets(worker.clients, plans)
    return Plan(
        context.worker,
        worker.clients,
        plans,
        ignored,
        secrets,
        registry,
        registry_settings(below("value.converter.schema.registry", given), context.worker.external_registry),
        worker.listener,
    )


def _read(problems: Problems, path: Path) -> Mapping[str, str] | None:
    """Return the settings in a file, as far as they can be read; ``None`` if the file cannot be read."""
    try:
        settings, problems_found = read_file(path)
    except ConfigError as error:
        problems.all.extend(error.problems)
        return None
    problems.all.extend(problems_found)
    return settings


class _WorkerCheck:
    """The worker's flat map."""

    def __init__(self, problems: Problems, where: str, given: Mapping[str, str], *, known: bool) -> None:
        self._problems = problems
        self._where = where
        self._known = known
        self._plugins_known = known and not isinstance(given.get("plugin.path"), Unresolved)
        problems.collect(
            lambda: plugin_path.activate(given.get("plugin.path", ""), where), where, "plugin.path"
        )
        self.clients = _clients(given)
        """The settings of Kafka's clients."""
        self._settings = {
            key: value
            for key, value in given.items()
            if not key.startswith(PASSED_TO_CLIENTS) and key not in IGNORED
        }
        registry = below("schema.registry", self._settings)
        serves = registry.pop("url", "") == "embedded"
        self.registry = self._check_registry(registry) if serves else None
        """How the worker serves its broker's schemas, if it does."""
        self._registry_keys = {f"{_REGISTRY}{key}" for key in registry} if serves else set()
        self._listener_keys = {key for key in self._settings if key.startswith(LISTENER_PREFIX)}
        self.listener = self._check_listener()
        """Where the worker serves its pages, if it does."""

    def context(self) -> WorkerContext:
        """Check the worker's settings, and return what its connectors depend on."""
        settings, where = self._settings, self._where
        converters = {
            key: value
            for key, value in settings.items()
            if key.startswith(("key.converter.", "value.converter."))
        }
        checked_elsewhere = {*converters, *self._registry_keys, *self._listener_keys}
        for key in settings:
            if reason := refusal(key, of_worker=True):
                self._problems.add(ConfigProblem(where, key, reason))
                checked_elsewhere.add(key)
        worker, problems_found = WorkerSettings.check(
            {key: value for key, value in settings.items() if key not in checked_elsewhere}, where
        )
        self._problems.extend(problems_found, where)
        context = WorkerContext(
            where,
            worker,
            converters,
            self.clients if settings.get("bootstrap.servers") else None,
            self._plugins_known,
        )
        if context.clients is not None:
            problems_found = client_problems(context.clients)
            self._problems.extend(problems_found, where)
            if problems_found:  # reported once; what the connectors override is checked without them
                context = context._replace(clients={})
        if not self._known:
            return context
        return context._replace(defaults=check_default_converters(self._problems, context, settings))

    def _check_listener(self) -> WorkerListener | None:
        if not self._settings.get("listeners"):
            for key in sorted(self._listener_keys):
                problem = "has no effect without listeners. Set listeners, such as http://127.0.0.1:8083"
                self._problems.add(ConfigProblem(self._where, key, problem))
            return None
        try:
            return WorkerListener.parse(listener_settings(self._settings))
        except ValueError as error:
            self._problems.add(ConfigProblem(self._where, "listeners", str(error)))
        except ConfigError as error:
            self._problems.extend(
                [
                    problem._replace(key="listeners")
                    if problem.key == "listen"
                    else problem._replace(key=LISTENER_PREFIX + problem.key)
                    for problem in error.problems
                ],
                self._where,
            )
        return None

    def _check_registry(self, settings: Mapping[str, str]) -> RegistryConfig:
        try:
            return RegistryConfig.parse(settings)
        except ConfigError as error:
            self._problems.extend(error.problems, self._where, _REGISTRY)
        return RegistryConfig.parse({})


def _clients(worker: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's settings for Kafka's clients; librdkafka does not expand ``~``."""
    return {
        key: os.path.expanduser(value) if key.endswith(".location") else value
        for key, value in worker.items()
        if key.startswith(PASSED_TO_CLIENTS) and not isinstance(value, Unresolved)
    }


def _secrets(clients: Mapping[str, str], plans: Iterable[ConnectorPlan]) -> list[str]:
    """Return every secret of a plan."""
    secrets = list(client_secrets(clients))
    for planned in plans:
        configs = (
            planned.config,
            planned.key.config,
            planned.value.config,
            *(transform.config for transform in planned.transforms),
        )
        secrets += [secret for config in configs for secret in secrets_of(config)]
        clients_settings = [planned.value.registry, planned.key.registry, planned.overrides]
        if isinstance(planned, SinkPlan):
            clients_settings.append(planned.producer_overrides)
        for settings in clients_settings:
            secrets += client_secrets(settings)
    return secrets
