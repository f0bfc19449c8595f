"""Plugins, through stevedore and nowhere else.

A plugin is an entry point in one of the groups below. Only the requested one is imported, so
that a broken plugin does not affect others. Duplicate names are found here: stevedore silently takes the last
of several, and swallows errors while loading.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any, NamedTuple

from stevedore import ExtensionManager, NamedExtensionManager

from tieline.api import PluginError, SinkConnector, SinkTask, SourceConnector, SourceTask
from tieline.api.connector import connector_of

SOURCES, SINKS = "tieline.sources", "tieline.sinks"
CONVERTERS, TRANSFORMS = "tieline.converters", "tieline.transforms"
COMMANDS = "tieline.commands"
PAGES = "tieline.pages"
TRACES = "tieline.traces"

KIND = {
    SOURCES: "source",
    SINKS: "sink",
    CONVERTERS: "converter",
    TRANSFORMS: "transform",
    COMMANDS: "command",
    PAGES: "pages",
    TRACES: "trace",
}


_TASKS: dict[Any, Any] = {SourceConnector: SourceTask, SinkConnector: SinkTask}
_SUFFIXES = ("", "Connector", "Converter")


class Installed(NamedTuple):
    """An installed entry point, not imported."""

    name: str
    distribution: str
    """Empty if unknown."""
    version: str
    """The distribution's version."""
    target: str

    @property
    def owner(self) -> str:
        """The distribution with its version, for messages."""
        return f"{self.distribution} {self.version}" if self.distribution else "an unknown distribution"


def installed(group: str) -> list[Installed]:
    """Return all plugins of a group, sorted by name."""
    return sorted(map(_installed, _entry_points(group)))


def alias_of(plugin: Installed, plugins: Collection[Installed]) -> str:
    """Return the own name of a plugin that is installed under several; empty if ``plugin`` has that name.

    ``plugins`` are those of its group. Names of one class are aliases of the shortest one without a dot.
    """
    names = [other.name for other in plugins if other[1:] == plugin[1:]]
    shortest = min(names, key=lambda name: ("." in name, len(name)), default=plugin.name)
    return "" if shortest == plugin.name else shortest


def own_name(group: str, name: str) -> str:
    """Return the own name of the plugin that ``name`` means; ``name`` itself if it is not installed."""
    plugins = installed(group)
    installed_name = find_name(name, {plugin.name for plugin in plugins})
    return next(
        (alias_of(plugin, plugins) or plugin.name for plugin in plugins if plugin.name == installed_name),
        name,
    )


def unreadable() -> dict[str, str]:
    """Return why the entry points of distributions cannot be read, by their place."""
    reasons: dict[str, str] = {}
    for distribution in distributions():
        try:
            _plugins_of(distribution)
        except Exception as error:  # noqa: BLE001 - a damaged distribution may raise anything
            reasons[_place(distribution)] = (
                f"its entry points cannot be read: {type(error).__name__}: {error}"
            )
    return reasons


def load(group: str, name: str, contract: Any) -> Any:
    """Return the class behind a plugin's name, a subclass of ``contract``.

    An entry point of a source or sink may also name a task class, for which a connector is made. Raises
    ``PluginError`` if the plugin is unknown, installed twice, broken, or not what its group says.
    """
    kind = KIND[group]
    plugins = installed(group)
    name = find_name(name, {plugin.name for plugin in plugins}) or name
    matching = [plugin for plugin in plugins if plugin.name == name]
    if not matching:
        problem = describe_unknown(kind, name, {plugin.name for plugin in plugins})
        raise PluginError("; ".join([problem, *(f"{place}: {why}" for place, why in unreadable().items())]))
    if len(matching) > 1:
        owners = ", ".join(f"{plugin.owner} ({plugin.target})" for plugin in matching)
        raise PluginError(
            f"the {kind} {name!r} is installed {len(matching)} times: {owners}; uninstall all but one"
        )
    found = _load(group, name)
    if isinstance(found, type) and issubclass(found, _TASKS.get(contract, ())):
        try:
            return connector_of(found)
        except TypeError as error:
            raise PluginError(f"the {kind} {name!r} of {matching[0].owner} is broken: {error}") from error
    if not (isinstance(found, type) and issubclass(found, contract)):
        plugin = matching[0]
        raise PluginError(
            f"the {kind} {name!r} of {plugin.owner} is broken: {plugin.target} is not a {contract.__name__}"
        )
    return found


def find_name(name: str, names: Collection[str]) -> str | None:
    """Return the installed name that ``name`` means, or ``None``.

    A Java class name is also known by its last part, with or without ``Connector`` or ``Converter`` at
    its end, as in Kafka Connect (``FileStreamSource``).
    """
    if name in names:
        return name
    short = {f"{name}{suffix}" for suffix in _SUFFIXES}
    return next((known for known in names if "." in known and known.rpartition(".")[2] in short), None)


def describe_unknown(kind: str, name: str, names: Collection[str]) -> str:
    """Return the sentence about a plugin that is not installed: which are, and which may be meant."""
    short = sorted(known for known in names if "." not in known)
    near = difflib.get_close_matches(name, short, n=1) or difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"no {kind} is called {name!r}; {hint}installed {kind}s: {', '.join(short) or 'none'}"


def load_object(group: str, name: str) -> Any:
    """Return the object behind a name, such as a command. Raises ``PluginError`` if it is broken."""
    return _load(group, name)


def _load(group: str, name: str) -> Any:
    _entry_points(group)
    try:
        manager: NamedExtensionManager[Any] = NamedExtensionManager(
            group, [name], on_load_failure_callback=_broken, on_missing_entrypoints_callback=None
        )
    except (AssertionError, SystemExit) as error:  # stevedore does not catch these
        entry_point = next(e for e in _entry_points(group) if e.name == name)
        raise PluginError(_cause(group, entry_point, error)) from error
    return manager.extensions[0].plugin


def _entry_points(group: str) -> list[EntryPoint]:
    """Return the installed entry points of a group, and give them to stevedore.

    Its own list comes from a cache on disk that may be two minutes old, lacks the distributions, and leaves
    out an entry point that two distributions share. Of two distributions with one name the first counts, as
    for ``import``. A distribution that cannot be read has no entry points.
    """
    by_distribution: dict[str, list[EntryPoint]] = {}
    for distribution in distributions():
        try:
            points = _plugins_of(distribution)
        except Exception:  # noqa: BLE001 - ``unreadable`` reports it
            continue
        if points:
            by_distribution.setdefault(_named(distribution)[0] or _place(distribution), points)
    every = [point for points in by_distribution.values() for point in points if point.group == group]
    ExtensionManager.ENTRY_POINT_CACHE[group] = every
    return every


def _plugins_of(distribution: Distribution) -> list[EntryPoint]:
    text = distribution.read_text("entry_points.txt") or ""
    if "tieline." not in text:  # most have no plugins of ours, and need not be parsed
        return []
    return [point for point in distribution.entry_points if point.group in KIND]


def _named(distribution: Distribution | None) -> tuple[str, str]:
    """Return name and version; empty if unknown."""
    try:
        metadata: Any = distribution.metadata if distribution is not None else {}
        return str(metadata.get("Name") or ""), str(metadata.get("Version") or "")
    except Exception:  # noqa: BLE001 - an invalid METADATA file may raise anything
        return "", ""


def _place(distribution: Distribution) -> str:
    return str(getattr(distribution, "_path", None) or distribution.locate_file(""))


def _broken(manager: Any, entry_point: EntryPoint, error: BaseException) -> None:
    raise PluginError(_cause(manager.namespace, entry_point, error)) from error


def _cause(group: str, entry_point: EntryPoint, error: BaseException) -> str:
    return (
        f"the {KIND[group]} {entry_point.name!r} of {_installed(entry_point).owner} is broken: "
        f"{entry_point.value} cannot be imported: {type(error).__name__}: {error}"
    )


def _installed(entry_point: EntryPoint) -> Installed:
    return Installed(entry_point.name, *_named(entry_point.dist), entry_point.value)
