"""Checks one connector: reports every problem of its flat map at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar, cast

from tieline.api import (
    Config,
    ConfigError,
    ConfigProblem,
    Connector,
    Converter,
    Secret,
    SinkConnector,
    SourceConnector,
    Transform,
)
from tieline.api.config import Unresolved
from tieline.broker.backend import client_problems
from tieline.config.planned import ConnectorPlan, ConverterPlan, SinkPlan, SourcePlan, TransformPlan
from tieline.config.problems import Problems
from tieline.config.schema_registry import registry_problems, registry_settings
from tieline.config.settings import (
    ConnectorSettings,
    SinkSettings,
    SourceSettings,
    WorkerSettings,
)
from tieline.config.split import Split, below, split
from tieline.config.unsupported import NO_PREDICATES, refusal
from tieline.plugins import discovery

T = TypeVar("T")
_REGISTRY = "schema.registry."
_ANSWERED = (
    "all is not possible for this connector: it answers each record, also one that cannot be handled, and a "
    "command must never wait in a dead letter queue. Remove this setting"
)


class WorkerContext(NamedTuple):
    """What every connector has from the worker's file."""

    where: str
    worker: WorkerSettings
    converters: Mapping[str, str]
    clients: Mapping[str, str] | None
    """``None`` without Kafka: settings of its clients then have no effect."""
    plugins_known: bool
    """Whether all plugins are known: a worker's file that cannot be read may name more folders."""
    defaults: Mapping[str, type[Converter[Any]]] = {}
    """The worker's converters for ``key`` and ``value``, without a wrong one, which is reported once."""


def check_default_converters(
    problems: Problems, context: WorkerContext, given: Mapping[str, str]
) -> dict[str, type[Converter[Any]]]:
    """Check the worker's own converters with their settings once, and return those without a problem."""
    out: dict[str, type[Converter[Any]]] = {}
    for side, name in (("key", context.worker.key_converter), ("value", context.worker.value_converter)):
        key = f"{side}.converter"
        if isinstance(given.get(key), Unresolved):
            continue
        load = partial(discovery.load, discovery.CONVERTERS, name, Converter)
        loaded = problems.collect(load, context.where, key)
        if loaded is None:
            continue
        _, wrong = loaded.config_type.check(_without_registry(loaded, below(key, context.converters)))
        problems.extend(wrong, context.where, f"{key}.")
        if not wrong:
            out[side] = loaded
    return out


class ConnectorCheck:
    """One connector's flat map."""

    def __init__(
        self,
        problems: Problems,
        context: WorkerContext,
        where: str,
        settings: Mapping[str, str],
    ) -> None:
        self._problems = problems
        self._context = context
        self._where = f"{where} ({settings['name']})" if settings.get("name") else where
        self._settings = settings

    def check(self) -> ConnectorPlan | None:
        """Return the connector's plan, ``None`` if something is wrong."""
        count = len(self._problems.all)
        kind = self._type()
        common_type = SinkSettings if kind and issubclass(kind, SinkConnector) else SourceSettings
        parts = split(self._settings, common_type, kind.config_type.keys() if kind else ())
        common, wrong = common_type.check(parts.common, self._where)
        self._problems.extend(wrong, self._where)
        if kind and not wrong:
            self._check_dead_letters(kind, common)
        config = self._config(kind, parts, common_type) if kind else None
        key = self._converter("key", parts)
        value = self._converter("value", parts)
        transforms = self._transforms(parts)
        sink = common_type is SinkSettings
        overrides = self._overrides("consumer" if sink else "producer", parts)
        producer_overrides = self._overrides("producer", parts) if sink else {}
        if kind is None or config is None or key is None or value is None:
            return None
        if len(self._problems.all) > count:
            return None
        shared = config, parts.connector, key, value, transforms, overrides
        if isinstance(common, SinkSettings):
            sink_type = cast(type[SinkConnector[Any]], kind)
            return SinkPlan(*shared, common, sink_type, producer_overrides)
        return SourcePlan(*shared, common, cast(type[SourceConnector[Any]], kind))

    def _check_dead_letters(self, kind: type[Connector[Any]], common: Config) -> None:
        if not isinstance(common, ConnectorSettings) or common.dead_letters is None:
            return
        if issubclass(kind, SinkConnector) and kind.answers_records:
            self._problems.add(ConfigProblem(self._where, "errors.tolerance", _ANSWERED))

    def _overrides(self, client: Literal["consumer", "producer"], parts: Split) -> dict[str, str]:
        """Return the settings of one of this connector's own Kafka clients."""
        overrides = below(f"{client}.override", parts.prefixed)
        overrides = {
            key: os.path.expanduser(value) if key.endswith(".location") else value
            for key, value in overrides.items()
            if not isinstance(value, Unresolved)
        }
        if overrides and self._context.clients is not None:
            side = {client: overrides}
            self._problems.extend(client_problems(self._context.clients, **side), self._where)
        return overrides

    def _type(self) -> type[Connector[Any]] | None:
        name = self._settings.get("connector.class")
        if not name:
            return None  # the common settings report that it is required
        sources = {plugin.name for plugin in discovery.installed(discovery.SOURCES)}
        sinks = {plugin.name for plugin in discovery.installed(discovery.SINKS)}
        source, sink = discovery.find_name(name, sources), discovery.find_name(name, sinks)
        if source is None and sink is None:
            if not self._context.plugins_known:
                return None
            message = discovery.describe_unknown("connector", name, sources | sinks)
            self._problems.add(ConfigProblem(self._where, "connector.class", message))
            return None
        if sink and (source is None or "topics" in self._settings or "topics.regex" in self._settings):
            load = partial(discovery.load, discovery.SINKS, name, SinkConnector)
        else:
            load = partial(discovery.load, discovery.SOURCES, name, SourceConnector)
        loaded: type[Connector[Any]] | None = self._problems.collect(load, self._where, "connector.class")
        return loaded

    def _config(
        self, connector: type[Connector[Any]], parts: Split, common: type[ConnectorSettings]
    ) -> Config | None:
        settings = dict(parts.connector)
        for key in settings.keys() - set(connector.config_type.keys()):
            if reason := refusal(key, of_worker=False):
                self._problems.add(ConfigProblem(self._where, key, reason))
                del settings[key]
        config, wrong = connector.config_type.check(settings, self._where, also_known=common.keys())
        self._problems.extend(wrong, self._where)
        # Also if some settings are wrong: a missing file is still missing.
        reported = self._call_connector(
            lambda: list(connector.validate(config)), secrets_of(config), partial=bool(wrong)
        )
        known = {problem.key for problem in wrong}
        for key, message in reported or ():
            if key not in known:
                self._problems.add(ConfigProblem(self._where, key, message))
        return None if wrong else config

    def _call_connector(
        self, call: Callable[[], T], secrets: Sequence[str] = (), *, partial: bool = False
    ) -> T | None:
        """Return the result of the connector's own code; report what it raises as a problem.

        ``partial``: some settings are missing, so that an error may only be a consequence of that.
        """
        try:
            return call()
        except ConfigError as error:
            self._problems.extend(error.problems, self._where)
        except Exception as error:  # noqa: BLE001 - the connector's code may raise anything
            if partial:
                return None
            message = f"the connector failed while it was checked: {type(error).__name__}: {error}"
            for secret in filter(None, secrets):
                message = message.replace(secret, "***")
            self._problems.add(ConfigProblem(self._where, "connector.class", message))
        return None

    def _converter(self, side: str, parts: Split) -> ConverterPlan | None:
        key = f"{side}.converter"
        name = parts.common.get(key)
        settings = below(key, parts.prefixed)
        loaded: type[Converter[Any]] | None
        if isinstance(name, Unresolved):
            return None
        if name is None:
            loaded = self._context.defaults.get(side)
            settings = {**below(key, self._context.converters), **settings}
        else:
            loaded = self._problems.collect(
                partial(discovery.load, discovery.CONVERTERS, name, Converter), self._where, key
            )
        if loaded is None:
            return None
        registry: dict[str, str] = {}
        if _has_registry(loaded):
            registry = {k.removeprefix(_REGISTRY): v for k, v in settings.items() if k.startswith(_REGISTRY)}
        registry = self._registry(registry, key)
        config, wrong = loaded.config_type.check(_without_registry(loaded, settings), f"{self._where}: {key}")
        self._problems.extend(wrong, f"{self._where}: {key}")
        return None if wrong else ConverterPlan(loaded, config, registry)

    def _registry(self, given: Mapping[str, str], key: str) -> dict[str, str]:
        """Return the settings of the client of an external registry; empty if there is none."""
        if any(isinstance(value, Unresolved) for value in given.values()):
            return {}
        registry = registry_settings(given, self._context.worker.external_registry)
        if not registry:
            for name in given.keys() - {"url"}:
                message = f"has no effect without {key}.{_REGISTRY}url"
                self._problems.add(ConfigProblem(self._where, f"{key}.{_REGISTRY}{name}", message))
        elif given.get("url") or len(registry) > 1:
            self._problems.extend(registry_problems(registry), self._where, f"{key}.")
        else:  # all of it comes from the worker's file
            self._problems.extend(registry_problems(registry), self._context.where)
        return registry

    def _transforms(self, parts: Split) -> list[TransformPlan]:
        if isinstance(parts.common.get("transforms"), Unresolved):
            return []
        written = parts.common.get("transforms", "").split(",")  # also if the common settings are wrong
        names = [name for name in (part.strip() for part in written) if name]
        for key in parts.prefixed:
            if key.startswith("transforms.") and not key.startswith(tuple(f"transforms.{n}." for n in names)):
                named = ", ".join(names) or "nothing"
                self._problems.add(
                    ConfigProblem(self._where, key, f"belongs to no transform; transforms names {named}")
                )
        out: list[TransformPlan] = []
        for name in names:
            prefix = f"transforms.{name}"
            settings = below(prefix, parts.prefixed)
            kind = settings.pop("type", None)
            if isinstance(kind, Unresolved):
                continue
            if kind is None:
                self._problems.add(
                    ConfigProblem(self._where, f"{prefix}.type", "is required: the transform's plugin")
                )
                continue
            predicated = [key for key in ("predicate", "negate") if settings.pop(key, None) is not None]
            for key in predicated:
                self._problems.add(ConfigProblem(self._where, f"{prefix}.{key}", NO_PREDICATES))
            loaded = self._problems.collect(
                partial(discovery.load, discovery.TRANSFORMS, kind, Transform), self._where, f"{prefix}.type"
            )
            if loaded is not None:
                config, wrong = loaded.config_type.check(settings, f"{self._where}: {prefix}")
                self._problems.extend(wrong, f"{self._where}: {prefix}")
                if not wrong:
                    out.append(TransformPlan(loaded, config))
        return out


def _without_registry(kind: type[Converter[Any]], settings: Mapping[str, str]) -> dict[str, str]:
    """Return a converter's own settings, without those of a registry's client."""
    return {k: v for k, v in settings.items() if not (k.startswith(_REGISTRY) and _has_registry(kind))}


def _has_registry(kind: type[Converter[Any]]) -> bool:
    return f"{_REGISTRY}url" in set(kind.config_type.keys())


def secrets_of(config: Config) -> list[str]:
    """Return the texts of a configuration that must not be printed."""
    values = [getattr(config, name, None) for name in type(config).model_fields]
    return [value.get_secret_value() for value in values if isinstance(value, Secret)]
