"""From files to a plan: everything that can be wrong is found here, and told together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tieline.api import (
    Config,
    ConfigError,
    Connector,
    Converter,
    Mistake,
    PluginError,
    Secret,
    SinkConnector,
    SourceConnector,
    Transform,
)
from tieline.runtime import plugins
from tieline.runtime.config_files import read_settings
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

_SECRET_WORDS = ("password", "secret", "user.info", "jaas", "token", "key.pem")
"""What the keys of secrets have in them where a client reads the setting and not a ``Config``."""


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


def plan(worker_file: Path | None, connector_files: Sequence[Path]) -> Plan:
    """Read and check everything. Raises ``ConfigError`` with every mistake of all files."""
    found = _Mistakes()
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
    found = _Mistakes(so_far)
    clients = {k: v for k, v in worker_settings.items() if k.startswith(PASSED_TO_CLIENTS)}
    own = {k: v for k, v in worker_settings.items() if k not in clients and k not in IGNORED}
    converters = {k: v for k, v in own.items() if k.startswith(("key.converter.", "value.converter."))}
    worker = found.tried(
        lambda: WorkerSettings.parse({k: v for k, v in own.items() if k not in converters}, where)
    ) or WorkerSettings.parse({})
    ignored = {k: IGNORED[k] for k in worker_settings if k in IGNORED}
    plans: list[ConnectorPlan] = []
    names: dict[str, str] = {}
    for place, settings in connectors:
        ignored |= {k: IGNORED[k] for k in settings if k in IGNORED}
        name = settings.get("name", "")
        if name and name in names:
            found.add(Mistake(place, "name", f"{name!r} is also the name in {names[name]}"))
        names.setdefault(name, place)
        planned = _Check(found, worker, converters, place, settings).connector()
        if planned is not None:
            plans.append(planned)
    found.report()
    secrets = [s for p in plans for config in _configs(p) for s in _secrets(config)]
    passed = [clients, *(part for p in plans for part in (p.value.registry, p.key.registry, p.overrides))]
    secrets += [v for part in passed for k, v in part.items() if any(word in k for word in _SECRET_WORDS)]
    return Plan(worker, clients, plans, ignored, secrets)


class _Mistakes:
    """Collects what is wrong instead of stopping at the first."""

    def __init__(self, so_far: Iterable[Mistake] = ()) -> None:
        self.all: list[Mistake] = list(so_far)

    def add(self, mistake: Mistake) -> None:
        self.all.append(mistake)

    def tried(self, check: Any, where: str = "", key: str = "") -> Any:
        """The check's answer, or none after noting its mistakes."""
        try:
            return check()
        except ConfigError as error:
            self.all.extend(error.mistakes)
        except PluginError as error:
            self.all.append(Mistake(where, key, str(error)))
        return None

    def report(self) -> None:
        if self.all:
            raise ConfigError(self.all)


class _Check:
    """One connector's flat map."""

    def __init__(
        self,
        found: _Mistakes,
        worker: WorkerSettings,
        defaults: Mapping[str, str],
        where: str,
        settings: Mapping[str, str],
    ) -> None:
        self._found = found
        self._worker = worker
        self._defaults = defaults
        self._where = f"{where} ({settings['name']})" if settings.get("name") else where
        self._settings = settings

    def connector(self) -> ConnectorPlan | None:
        count = len(self._found.all)
        kind = self._type()
        common_type = SinkSettings if kind and issubclass(kind, SinkConnector) else SourceSettings
        parts = split(self._settings, common_type, kind.config_type.keys() if kind else ())
        common = self._found.tried(lambda: common_type.parse(parts.common, self._where))
        connector = kind() if kind else None
        config = self._config(connector, parts, common_type) if connector else None
        key = self._converter("key", common, parts)
        value = self._converter("value", common, parts)
        transforms = self._transforms(common, parts)
        if connector is None or config is None or key is None or value is None:
            return None
        if len(self._found.all) > count:
            return None
        side = "consumer.override" if isinstance(connector, SinkConnector) else "producer.override"
        return ConnectorPlan(
            common, connector, config, parts.own, key, value, transforms, below(side, parts.prefixed)
        )

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
            for key, message in connector.validate(config):
                self._found.add(Mistake(self._where, key, message))
        return config

    def _converter(self, side: str, common: ConnectorSettings | None, parts: Split) -> ConverterPlan | None:
        key = f"{side}.converter"
        name = parts.common.get(key)
        own = below(key, parts.prefixed)
        if name is None:
            name = self._worker.key_converter if side == "key" else self._worker.value_converter
            own = {**below(key, self._defaults), **own}
        registry = {
            k.removeprefix("schema.registry."): v for k, v in own.items() if k.startswith("schema.registry.")
        }
        if not registry.get("url") and self._worker.schema_registry_url:
            registry["url"] = self._worker.schema_registry_url
        rest = {k: v for k, v in own.items() if not k.startswith("schema.registry.")}
        loaded = self._found.tried(
            partial(plugins.load, plugins.CONVERTERS, name, Converter), self._where, key
        )
        if loaded is None:
            return None
        config = self._found.tried(lambda: loaded.config_type.parse(rest, f"{self._where}: {key}"))
        return (
            None if config is None else ConverterPlan(loaded, config, registry if registry.get("url") else {})
        )

    def _transforms(self, common: ConnectorSettings | None, parts: Split) -> list[TransformPlan]:
        if common is None:
            return []
        names = common.transforms
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
