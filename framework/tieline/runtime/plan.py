"""From files to a plan: everything that can be wrong is found here, and told together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tieline.api import (
    Config,
    ConfigError,
    Connector,
    Converter,
    Mistake,
    Secret,
    SinkConnector,
    SourceConnector,
    Transform,
)
from tieline.broker.kafka import settings as kafka
from tieline.registry.remote import RemoteSchemaStore
from tieline.registry.server import RegistryConfig
from tieline.runtime import plugin_path, plugins
from tieline.runtime.config_files import read_settings
from tieline.runtime.mistakes import Mistakes
from tieline.runtime.settings import (
    IGNORED,
    PASSED_TO_CLIENTS,
    ConnectorSettings,
    SinkSettings,
    SourceSettings,
    Split,
    WorkerSettings,
    below,
    split,
)

T = TypeVar("T")
_REGISTRY = "schema.registry."


@dataclass(frozen=True)
class ConverterPlan:
    """A converter's class and its settings, for keys or for values."""

    type: type[Converter[Any]]
    config: Config
    registry: Mapping[str, str]
    """Settings of a schema registry elsewhere (``url`` and the client's); empty: the topic ``_schemas``."""


@dataclass(frozen=True)
class TransformPlan:
    """A transform's class and its settings."""

    type: type[Transform[Any]]
    config: Config


@dataclass(frozen=True)
class ConnectorPlan:
    """One connector, checked: ready to start."""

    settings: ConnectorSettings
    connector: Connector[Any]
    config: Config
    own: Mapping[str, str]
    key: ConverterPlan
    value: ConverterPlan
    transforms: Sequence[TransformPlan]
    overrides: Mapping[str, str]
    """``producer.override.*`` of a source, ``consumer.override.*`` of a sink."""

    @property
    def name(self) -> str:
        """The connector's name."""
        return self.settings.name


@dataclass(frozen=True)
class Plan:
    """One worker and its connectors, checked."""

    worker: WorkerSettings
    clients: Mapping[str, str]
    """Worker settings that go to Kafka's clients as they are (TLS, SASL)."""
    connectors: Sequence[ConnectorPlan]
    ignored: Mapping[str, str]
    """Settings of Kafka Connect that mean nothing here, and why."""
    secrets: Sequence[str]
    registry: RegistryConfig | None = None
    """How this worker serves its broker's schemas over HTTP; none: it does not."""


def plan(worker_file: Path | None, connector_files: Sequence[Path]) -> Plan:
    """Read and check everything. Raises ``ConfigError`` with every mistake of all files."""
    found = Mistakes()
    worker_settings = {} if worker_file is None else found.tried(lambda: read_settings(worker_file)) or {}
    files = [(str(path), found.tried(partial(read_settings, path))) for path in connector_files]
    return checked(
        str(worker_file or "worker"), worker_settings, [(w, s) for w, s in files if s is not None], found.all
    )


def checked(
    where: str,
    worker_settings: Mapping[str, str],
    connectors: Iterable[tuple[str, Mapping[str, str]]],
    so_far: Iterable[Mistake] = (),
) -> Plan:
    """Check flat maps: the worker's, and ``(where, settings)`` of each connector."""
    found = Mistakes(so_far)
    found.tried(lambda: plugin_path.activate(worker_settings.get("plugin.path", ""), where))
    clients = {k: v for k, v in worker_settings.items() if k.startswith(PASSED_TO_CLIENTS)}
    own = {k: v for k, v in worker_settings.items() if k not in clients and k not in IGNORED}
    converters = {k: v for k, v in own.items() if k.startswith(("key.converter.", "value.converter."))}
    served = below("schema.registry", own)
    registry = _registry_served(found, where, served) if served.pop("url", "") == "embedded" else None
    passed_on = {*converters, *(f"{_REGISTRY}{key}" for key in served if registry is not None)}
    worker = found.tried(
        lambda: WorkerSettings.parse({k: v for k, v in own.items() if k not in passed_on}, where)
    ) or WorkerSettings.parse({})
    reach = _Reach(where, worker, converters, clients if own.get("bootstrap.servers") else None)
    if reach.clients is not None:
        wrong = kafka.mistakes(reach.clients)
        found.extend(wrong, where)
        if wrong:  # told once; what the connectors override is looked at without them
            reach = reach._replace(clients={})
    ignored = {k: IGNORED[k] for k in worker_settings if k in IGNORED}
    plans: list[ConnectorPlan] = []
    names: dict[str, str] = {}
    for place, settings in connectors:
        ignored |= {k: IGNORED[k] for k in settings if k in IGNORED}
        name = settings.get("name", "")
        if name and name in names:
            found.add(Mistake(place, "name", f"{name!r} is also the name in {names[name]}"))
        names.setdefault(name, place)
        planned = _Check(found, reach, place, settings).connector()
        if planned is not None:
            plans.append(planned)
    found.report()
    secrets = [s for p in plans for config in _configs(p) for s in _secrets(config)]
    passed = [clients, *(part for p in plans for part in (p.value.registry, p.key.registry, p.overrides))]
    secrets += [secret for part in passed for secret in kafka.secrets(part)]
    return Plan(worker, clients, plans, ignored, secrets, registry)


def _registry_served(found: Mistakes, where: str, settings: Mapping[str, str]) -> RegistryConfig:
    """How the worker serves its broker's schemas to others."""
    try:
        return RegistryConfig.parse(settings)
    except ConfigError as error:
        found.extend(error.mistakes, where, _REGISTRY)
    return RegistryConfig.parse({})


class _Reach(NamedTuple):
    """What the worker's file gives to every connector."""

    where: str
    worker: WorkerSettings
    converters: Mapping[str, str]
    clients: Mapping[str, str] | None
    """None: there is no Kafka, and settings of its clients have no effect."""


class _Check:
    """One connector's flat map."""

    def __init__(
        self,
        found: Mistakes,
        reach: _Reach,
        where: str,
        settings: Mapping[str, str],
    ) -> None:
        self._found = found
        self._reach = reach
        self._where = f"{where} ({settings['name']})" if settings.get("name") else where
        self._settings = settings

    def connector(self) -> ConnectorPlan | None:
        count = len(self._found.all)
        kind = self._type()
        common_type = SinkSettings if kind and issubclass(kind, SinkConnector) else SourceSettings
        parts = split(self._settings, common_type, kind.config_type.keys() if kind else ())
        common = self._found.tried(lambda: common_type.parse(parts.common, self._where))
        connector = self._own_code(kind) if kind else None
        config = self._config(connector, parts, common_type) if connector else None
        key = self._converter("key", parts)
        value = self._converter("value", parts)
        transforms = self._transforms(parts)
        overrides = self._overrides(common_type, parts)
        if connector is None or config is None or key is None or value is None:
            return None
        if len(self._found.all) > count:
            return None
        return ConnectorPlan(common, connector, config, parts.own, key, value, transforms, overrides)

    def _overrides(self, common: type[ConnectorSettings], parts: Split) -> dict[str, str]:
        """What this connector's client of Kafka has of its own."""
        sink = common is SinkSettings
        overrides = below("consumer.override" if sink else "producer.override", parts.prefixed)
        if overrides and self._reach.clients is not None:
            side = {"consumer" if sink else "producer": overrides}
            self._found.extend(kafka.mistakes(self._reach.clients, **side), self._where)
        return overrides

    def _type(self) -> type[Connector[Any]] | None:
        name = self._settings.get("connector.class")
        if not name:
            return None  # the common settings say that it is required
        sources = {plugin.name for plugin in plugins.installed(plugins.SOURCES)}
        sinks = {plugin.name for plugin in plugins.installed(plugins.SINKS)}
        source, sink = plugins.known_as(name, sources), plugins.known_as(name, sinks)
        if source is None and sink is None:
            message = plugins.unknown("connector", name, sources | sinks)
            self._found.add(Mistake(self._where, "connector.class", message))
            return None
        if sink and (source is None or "topics" in self._settings or "topics.regex" in self._settings):
            load = partial(plugins.load, plugins.SINKS, name, SinkConnector)
        else:
            load = partial(plugins.load, plugins.SOURCES, name, SourceConnector)
        loaded: type[Connector[Any]] | None = self._found.tried(load, self._where, "connector.class")
        return loaded

    def _config(
        self, connector: Connector[Any], parts: Split, common: type[ConnectorSettings]
    ) -> Config | None:
        config: Config | None = self._found.tried(
            lambda: connector.config_type.parse(parts.own, self._where, also_known=common.keys())
        )
        if config is not None:
            told = self._own_code(lambda: list(connector.validate(config)), _secrets(config))
            for key, message in told or ():
                self._found.add(Mistake(self._where, key, message))
        return config

    def _own_code(self, call: Callable[[], T], secrets: Sequence[str] = ()) -> T | None:
        """What the connector's own code answers; what it raises is a mistake among the others."""
        try:
            return call()
        except ConfigError as error:
            self._found.extend(error.mistakes, self._where)
        except Exception as error:  # somebody else's code
            message = f"the connector failed while it was checked: {type(error).__name__}: {error}"
            for secret in filter(None, secrets):
                message = message.replace(secret, "***")
            self._found.add(Mistake(self._where, "connector.class", message))
        return None

    def _converter(self, side: str, parts: Split) -> ConverterPlan | None:
        key = f"{side}.converter"
        name = parts.common.get(key)
        own = below(key, parts.prefixed)
        if name is None:
            worker = self._reach.worker
            name = worker.key_converter if side == "key" else worker.value_converter
            own = {**below(key, self._reach.converters), **own}
        loaded: type[Converter[Any]] | None = self._found.tried(
            partial(plugins.load, plugins.CONVERTERS, name, Converter), self._where, key
        )
        if loaded is None:
            return None
        registry: dict[str, str] = {}
        known = loaded.config_type.keys()
        if f"{_REGISTRY}url" in known:
            registry = {k.removeprefix(_REGISTRY): v for k, v in own.items() if k.startswith(_REGISTRY)}
            own = {k: v for k, v in own.items() if not k.startswith(_REGISTRY)}
        registry = self._registry(registry, key)
        config = self._found.tried(lambda: loaded.config_type.parse(own, f"{self._where}: {key}"))
        return None if config is None else ConverterPlan(loaded, config, registry)

    def _registry(self, given: Mapping[str, str], key: str) -> dict[str, str]:
        """The settings of the client of a registry elsewhere; empty if there is none."""
        where, prefix = self._where, f"{key}."
        registry = dict(given)
        if not given.get("url") and self._reach.worker.registry_elsewhere:
            registry["url"] = self._reach.worker.registry_elsewhere
            if len(registry) == 1:  # all of it is the worker's
                where, prefix = self._reach.where, ""
        if not registry.get("url"):
            for name in given.keys() - {"url"}:
                message = f"means nothing without {key}.{_REGISTRY}url"
                self._found.add(Mistake(self._where, f"{key}.{_REGISTRY}{name}", message))
            return {}
        try:
            RemoteSchemaStore(registry).close()  # connects with the first question only
        except ConfigError as error:
            self._found.extend(error.mistakes, where, prefix)
        return registry

    def _transforms(self, parts: Split) -> list[TransformPlan]:
        written = parts.common.get("transforms", "").split(",")  # also where the common settings are wrong
        names = [name for name in (part.strip() for part in written) if name]
        for key in parts.prefixed:
            if key.startswith("transforms.") and not key.startswith(tuple(f"transforms.{n}." for n in names)):
                named = ", ".join(names) or "nothing"
                self._found.add(
                    Mistake(self._where, key, f"belongs to no transform; transforms names {named}")
                )
        out: list[TransformPlan] = []
        for name in names:
            prefix = f"transforms.{name}"
            own = below(prefix, parts.prefixed)
            kind = own.pop("type", None)
            if kind is None:
                self._found.add(Mistake(self._where, f"{prefix}.type", "is required: the transform's plugin"))
                continue
            if "predicate" in own or "negate" in own:
                self._found.add(
                    Mistake(self._where, f"{prefix}.predicate", "predicates are not supported yet")
                )
                continue
            loaded = self._found.tried(
                partial(plugins.load, plugins.TRANSFORMS, kind, Transform), self._where, f"{prefix}.type"
            )
            if loaded is not None:
                config = self._found.tried(partial(loaded.config_type.parse, own, f"{self._where}: {prefix}"))
                if config is not None:
                    out.append(TransformPlan(loaded, config))
        return out


def _configs(planned: ConnectorPlan) -> list[Config]:
    return [planned.config, planned.key.config, planned.value.config, *(t.config for t in planned.transforms)]


def _secrets(config: Config) -> list[str]:
    values = [getattr(config, name) for name in type(config).model_fields]
    return [value.get_secret_value() for value in values if isinstance(value, Secret)]
