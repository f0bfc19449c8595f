"""Checking one connector: every problem of its flat map at once, and nothing that is not one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

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
from tieline.config.planned import ConnectorPlan, ConverterPlan, TransformPlan
from tieline.config.problems import Problems
from tieline.config.schema_registry import registry_problems, registry_settings
from tieline.config.settings import (
    ConnectorSettings,
    SinkSettings,
    SourceSettings,
    Split,
    WorkerSettings,
    below,
    split,
)
from tieline.config.unsupported import NO_PREDICATES, refusal
from tieline.plugins import discovery

T = TypeVar("T")
_REGISTRY = "schema.registry."


class Reach(NamedTuple):
    """What the worker's file gives to every connector."""

    where: str
    worker: WorkerSettings
    converters: Mapping[str, str]
    clients: Mapping[str, str] | None
    """None: there is no Kafka, and settings of its clients have no effect."""
    plugins: bool
    """Whether all plugins are known: a worker's file that cannot be read may name folders with more."""
    defaults: Mapping[str, type[Converter[Any]]] = {}
    """The worker's converters for ``key`` and ``value``; a wrong one, which is told once, is left out."""


def known_defaults(
    found: Problems, reach: Reach, given: Mapping[str, str]
) -> dict[str, type[Converter[Any]]]:
    """The worker's own converters, checked with their settings: once, and not for each connector."""
    out: dict[str, type[Converter[Any]]] = {}
    for side, name in (("key", reach.worker.key_converter), ("value", reach.worker.value_converter)):
        key = f"{side}.converter"
        if isinstance(given.get(key), Unresolved):
            continue
        loaded = found.tried(partial(discovery.load, discovery.CONVERTERS, name, Converter), reach.where, key)
        if loaded is None:
            continue
        _, wrong = loaded.config_type.check(_without_registry(loaded, below(key, reach.converters)))
        found.extend(wrong, reach.where, f"{key}.")
        if not wrong:
            out[side] = loaded
    return out


class ConnectorCheck:
    """One connector's flat map."""

    def __init__(
        self,
        found: Problems,
        reach: Reach,
        where: str,
        settings: Mapping[str, str],
    ) -> None:
        self._found = found
        self._reach = reach
        self._where = f"{where} ({settings['name']})" if settings.get("name") else where
        self._settings = settings

    def connector(self) -> ConnectorPlan | None:
        """What is planned, or None where something is wrong."""
        count = len(self._found.all)
        kind = self._type()
        common_type = SinkSettings if kind and issubclass(kind, SinkConnector) else SourceSettings
        parts = split(self._settings, common_type, kind.config_type.keys() if kind else ())
        common, wrong = common_type.check(parts.common, self._where)
        self._found.extend(wrong, self._where)
        config = self._config(kind, parts, common_type) if kind else None
        key = self._converter("key", parts)
        value = self._converter("value", parts)
        transforms = self._transforms(parts)
        overrides = self._overrides(common_type, parts)
        if kind is None or config is None or key is None or value is None:  # or something is wrong
            return None
        if len(self._found.all) > count:
            return None
        return ConnectorPlan(common, kind, config, parts.own, key, value, transforms, overrides)

    def _overrides(self, common: type[ConnectorSettings], parts: Split) -> dict[str, str]:
        """What this connector's client of Kafka has of its own."""
        sink = common is SinkSettings
        overrides = below("consumer.override" if sink else "producer.override", parts.prefixed)
        overrides = {
            key: os.path.expanduser(value) if key.endswith(".location") else value
            for key, value in overrides.items()
            if not isinstance(value, Unresolved)
        }
        if overrides and self._reach.clients is not None:
            side = {"consumer" if sink else "producer": overrides}
            self._found.extend(client_problems(self._reach.clients, **side), self._where)
        return overrides

    def _type(self) -> type[Connector[Any]] | None:
        name = self._settings.get("connector.class")
        if not name:
            return None  # the common settings say that it is required
        sources = {plugin.name for plugin in discovery.installed(discovery.SOURCES)}
        sinks = {plugin.name for plugin in discovery.installed(discovery.SINKS)}
        source, sink = discovery.known_as(name, sources), discovery.known_as(name, sinks)
        if source is None and sink is None:
            if not self._reach.plugins:
                return None
            message = discovery.unknown("connector", name, sources | sinks)
            self._found.add(ConfigProblem(self._where, "connector.class", message))
            return None
        if sink and (source is None or "topics" in self._settings or "topics.regex" in self._settings):
            load = partial(discovery.load, discovery.SINKS, name, SinkConnector)
        else:
            load = partial(discovery.load, discovery.SOURCES, name, SourceConnector)
        loaded: type[Connector[Any]] | None = self._found.tried(load, self._where, "connector.class")
        return loaded

    def _config(
        self, connector: type[Connector[Any]], parts: Split, common: type[ConnectorSettings]
    ) -> Config | None:
        own = dict(parts.own)
        for key in own.keys() - set(connector.config_type.keys()):
            if reason := refusal(key, of_worker=False):
                self._found.add(ConfigProblem(self._where, key, reason))
                del own[key]
        config, wrong = connector.config_type.check(own, self._where, also_known=common.keys())
        self._found.extend(wrong, self._where)
        # Also where some settings are wrong: a file that is missing is missing all the same.
        told = self._own_code(
            lambda: list(connector.validate(config)), secrets_of(config), partial=bool(wrong)
        )
        known = {problem.key for problem in wrong}
        for key, message in told or ():
            if key not in known:
                self._found.add(ConfigProblem(self._where, key, message))
        return None if wrong else config

    def _own_code(
        self, call: Callable[[], T], secrets: Sequence[str] = (), *, partial: bool = False
    ) -> T | None:
        """What the connector's own code answers; what it raises is a problem among the others.

        ``partial``: it looks at settings of which some are missing, and may trip over that.
        """
        try:
            return call()
        except ConfigError as error:
            self._found.extend(error.problems, self._where)
        except Exception as error:  # somebody else's code
            if partial:
                return None
            message = f"the connector failed while it was checked: {type(error).__name__}: {error}"
            for secret in filter(None, secrets):
                message = message.replace(secret, "***")
            self._found.add(ConfigProblem(self._where, "connector.class", message))
        return None

    def _converter(self, side: str, parts: Split) -> ConverterPlan | None:
        key = f"{side}.converter"
        name = parts.common.get(key)
        own = below(key, parts.prefixed)
        loaded: type[Converter[Any]] | None
        if isinstance(name, Unresolved):
            return None
        if name is None:
            loaded = self._reach.defaults.get(side)
            own = {**below(key, self._reach.converters), **own}
        else:
            loaded = self._found.tried(
                partial(discovery.load, discovery.CONVERTERS, name, Converter), self._where, key
            )
        if loaded is None:
            return None
        registry: dict[str, str] = {}
        if _has_registry(loaded):
            registry = {k.removeprefix(_REGISTRY): v for k, v in own.items() if k.startswith(_REGISTRY)}
        registry = self._registry(registry, key)
        config, wrong = loaded.config_type.check(_without_registry(loaded, own), f"{self._where}: {key}")
        self._found.extend(wrong, f"{self._where}: {key}")
        return None if wrong else ConverterPlan(loaded, config, registry)

    def _registry(self, given: Mapping[str, str], key: str) -> dict[str, str]:
        """Return the settings of the client of an external registry; empty if there is none."""
        if any(isinstance(value, Unresolved) for value in given.values()):
            return {}
        registry = registry_settings(given, self._reach.worker.registry_elsewhere)
        if not registry:
            for name in given.keys() - {"url"}:
                message = f"has no effect without {key}.{_REGISTRY}url"
                self._found.add(ConfigProblem(self._where, f"{key}.{_REGISTRY}{name}", message))
        elif given.get("url") or len(registry) > 1:
            self._found.extend(registry_problems(registry), self._where, f"{key}.")
        else:  # all of it is in the worker's file
            self._found.extend(registry_problems(registry), self._reach.where)
        return registry

    def _transforms(self, parts: Split) -> list[TransformPlan]:
        if isinstance(parts.common.get("transforms"), Unresolved):
            return []
        written = parts.common.get("transforms", "").split(",")  # also where the common settings are wrong
        names = [name for name in (part.strip() for part in written) if name]
        for key in parts.prefixed:
            if key.startswith("transforms.") and not key.startswith(tuple(f"transforms.{n}." for n in names)):
                named = ", ".join(names) or "nothing"
                self._found.add(
                    ConfigProblem(self._where, key, f"belongs to no transform; transforms names {named}")
                )
        out: list[TransformPlan] = []
        for name in names:
            prefix = f"transforms.{name}"
            own = below(prefix, parts.prefixed)
            kind = own.pop("type", None)
            if isinstance(kind, Unresolved):
                continue
            if kind is None:
                self._found.add(
                    ConfigProblem(self._where, f"{prefix}.type", "is required: the transform's plugin")
                )
                continue
            predicated = [key for key in ("predicate", "negate") if own.pop(key, None) is not None]
            for key in predicated:
                self._found.add(ConfigProblem(self._where, f"{prefix}.{key}", NO_PREDICATES))
            loaded = self._found.tried(
                partial(discovery.load, discovery.TRANSFORMS, kind, Transform), self._where, f"{prefix}.type"
            )
            if loaded is not None:
                config, wrong = loaded.config_type.check(own, f"{self._where}: {prefix}")
                self._found.extend(wrong, f"{self._where}: {prefix}")
                if not wrong:
                    out.append(TransformPlan(loaded, config))
        return out


def _without_registry(kind: type[Converter[Any]], settings: Mapping[str, str]) -> dict[str, str]:
    """A converter's own settings: those of a registry's client are not its."""
    return {k: v for k, v in settings.items() if not (k.startswith(_REGISTRY) and _has_registry(kind))}


def _has_registry(kind: type[Converter[Any]]) -> bool:
    return f"{_REGISTRY}url" in set(kind.config_type.keys())


def secrets_of(config: Config) -> list[str]:
    """The texts of a configuration that must not be printed."""
    values = [getattr(config, name, None) for name in type(config).model_fields]
    return [value.get_secret_value() for value in values if isinstance(value, Secret)]
