"""Plugins, through stevedore and nowhere else.

A plugin is an entry point in one of the groups below. Only the one that is asked for is imported, so a
broken neighbour disturbs nobody; whether a name is there once is counted here (stevedore takes the
last of several without a word, and swallows what goes wrong while loading).
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

KIND = {
    SOURCES: "source",
    SINKS: "sink",
    CONVERTERS: "converter",
    TRANSFORMS: "transform",
    COMMANDS: "command",
}


_TASKS: dict[Any, Any] = {SourceConnector: SourceTask, SinkConnector: SinkTask}
_LAST_WORDS = ("", "Connector", "Converter")


class Installed(NamedTuple):
    """An entry point that is installed; nothing of it was imported."""

    name: str
    distribution: str
    """Empty: unknown."""
    version: str
    """Of the distribution."""
    target: str

    @property
    def owner(self) -> str:
        """The distribution with its version, for messages."""
        return f"{self.distribution} {self.version}" if self.distribution else "an unknown distribution"


def installed(group: str) -> list[Installed]:
    """All plugins of a group, by name."""
    return sorted(map(_installed, _entry_points(group)))


def alias_of(plugin: Installed, plugins: Collection[Installed]) -> str:
    """Return the own name of a plugin that is installed under several; empty if ``plugin`` has that name.

    ``plugins`` are those of its group. Names of one class are aliases of the shortest one without a dot.
    """
    names = [other.name for other in plugins if other[1:] == plugin[1:]]
    own = min(names, key=lambda name: ("." in name, len(name)), default=plugin.name)
    return "" if own == plugin.name else own


def unreadable() -> dict[str, str]:
    """The distributions whose entry points cannot be read, by their place, and why."""
    found: dict[str, str] = {}
    for distribution in distributions():
        try:
            _plugins_of(distribution)
        except Exception as error:
            found[_place(distribution)] = f"its entry points cannot be read: {type(error).__name__}: {error}"
    return found


def load(group: str, name: str, contract: Any) -> Any:
    """Return the class behind a plugin's name, a subclass of ``contract``.

    An entry point of a source or sink may also name a task class, for which a connector is made. Raises
    ``PluginError`` if the plugin is unknown, installed twice, broken, or not what its group says.
    """
    kind = KIND[group]
    plugins = installed(group)
    name = known_as(name, {plugin.name for plugin in plugins}) or name
    here = [plugin for plugin in plugins if plugin.name == name]
    if not here:
        told = unknown(kind, name, {plugin.name for plugin in plugins})
        raise PluginError("; ".join([told, *(f"{place}: {why}" for place, why in unreadable().items())]))
    if len(here) > 1:
        owners = ", ".join(f"{plugin.owner} ({plugin.target})" for plugin in here)
        raise PluginError(f"the {kind} {name!r} is there {len(here)} times: {owners}; uninstall all but one")
    found = _load(group, name)
    if isinstance(found, type) and issubclass(found, _TASKS.get(contract, ())):
        try:
            return connector_of(found)
        except TypeError as error:
            raise PluginError(f"the {kind} {name!r} of {here[0].owner} is broken: {error}") from error
    if not (isinstance(found, type) and issubclass(found, contract)):
        raise PluginError(
            f"the {kind} {name!r} of {here[0].owner} is broken: {here[0].target} is no {contract.__name__}"
        )
    return found


def known_as(name: str, names: Collection[str]) -> str | None:
    """The installed name that ``name`` means, or none.

    A Java class name is also known by its last part, with or without ``Connector`` or ``Converter`` at
    its end, as in Kafka Connect (``FileStreamSource``).
    """
    if name in names:
        return name
    short = {f"{name}{word}" for word in _LAST_WORDS}
    return next((known for known in names if "." in known and known.rpartition(".")[2] in short), None)


def unknown(kind: str, name: str, names: Collection[str]) -> str:
    """The sentence about a plugin that is not installed: what is, and which of these may be meant."""
    short = sorted(known for known in names if "." not in known)
    near = difflib.get_close_matches(name, short, n=1) or difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"no {kind} is called {name!r}; {hint}installed {kind}s: {', '.join(short) or 'none'}"


def load_object(group: str, name: str) -> Any:
    """Whatever object is behind a name (a command). Raises ``PluginError`` if it is broken."""
    return _load(group, name)


def _load(group: str, name: str) -> Any:
    _entry_points(group)
    try:
        manager: NamedExtensionManager[Any] = NamedExtensionManager(
            group, [name], on_load_failure_callback=_broken, on_missing_entrypoints_callback=None
        )
    except (AssertionError, SystemExit) as error:  # these stevedore lets through
        entry_point = next(e for e in _entry_points(group) if e.name == name)
        raise PluginError(_cause(group, entry_point, error)) from error
    return manager.extensions[0].plugin


def _entry_points(group: str) -> list[EntryPoint]:
    """What is installed now, for stevedore too; a distribution that cannot be read has nothing.

    Its own list comes from a cache on disk that may be two minutes old, has lost the distributions, and
    leaves out an entry point that two distributions have alike. Of two of one name the first one counts, as
    for ``import``.
    """
    found: dict[str, list[EntryPoint]] = {}
    for distribution in distributions():
        try:
            points = _plugins_of(distribution)
        except Exception:
            continue  # ``unreadable`` tells of it
        if points:
            found.setdefault(_named(distribution)[0] or _place(distribution), points)
    every = [point for points in found.values() for point in points if point.group == group]
    ExtensionManager.ENTRY_POINT_CACHE[group] = every
    return every


def _plugins_of(distribution: Distribution) -> list[EntryPoint]:
    text = distribution.read_text("entry_points.txt") or ""
    if "tieline." not in text:  # most are not about us, and need not be parsed
        return []
    return [point for point in distribution.entry_points if point.group in KIND]


def _named(distribution: Distribution | None) -> tuple[str, str]:
    """Name and version; empty where nothing says so."""
    try:
        metadata: Any = distribution.metadata if distribution is not None else {}
        return str(metadata.get("Name") or ""), str(metadata.get("Version") or "")
    except Exception:  # whatever a file that is no METADATA makes of itself
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
