"""``tieline plugins``: what is installed, whether it works, and the settings of each plugin."""

from __future__ import annotations

import inspect
import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tieline.api import Converter, PluginError, SinkConnector, SourceConnector, StartupError, Transform
from tieline.plugins import discovery

plugins = typer.Typer(help="List the installed connectors, converters, transforms and commands.")

_CONTRACTS: dict[str, Any] = {
    discovery.SOURCES: SourceConnector,
    discovery.SINKS: SinkConnector,
    discovery.CONVERTERS: Converter,
    discovery.TRANSFORMS: Transform,
}

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


@plugins.callback(invoke_without_command=True)
def list_all(
    context: typer.Context,
    as_json: AsJson = False,
    check: Annotated[
        bool, typer.Option("--check", help="End with exit status 1 if a plugin is broken.")
    ] = False,
) -> None:
    """List every plugin with kind, name, version, distribution and status. Each one is imported.

    The version is the connector's own; the distribution is what was installed, with its version.
    """
    if context.invoked_subcommand is not None:
        return
    rows = [row for group in discovery.KIND for row in _rows(group)]
    rows += [
        {"kind": "distribution", "name": place, "version": "", "distribution": "", "status": why}
        for place, why in discovery.unreadable().items()
    ]
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        table = Table("kind", "name", "version", "distribution", "status")
        for row in rows:
            status = f"{row['status']} (alias of {row['alias_of']})" if row.get("alias_of") else row["status"]
            of = f"{row['distribution']} {row['version']}".strip()
            cells = (row["kind"], row["name"], row.get("plugin_version", ""), of, status)
            table.add_row(*map(Text, cells))
        Console().print(table)
    if check and any(row["status"] != "ok" for row in rows):
        raise typer.Exit(1)


@plugins.command()
def show(
    name: Annotated[str, typer.Argument(help="A plugin's name, such as mongo.")],
    as_json: AsJson = False,
) -> None:
    """Show a plugin and its settings: key, type, default, meaning."""
    descriptions = [_describe(group, name) for group in _CONTRACTS if _known(group, name)]
    if not descriptions:
        names = {plugin.name for group in _CONTRACTS for plugin in discovery.installed(group)}
        raise StartupError(discovery.describe_unknown("plugin", name, names))
    if as_json:
        typer.echo(json.dumps(descriptions))
        return
    console = Console()
    for plugin in descriptions:
        version = f", version {plugin['plugin_version']}" if plugin["plugin_version"] else ""
        origin = f", of {plugin['distribution']} {plugin['distribution_version']}".rstrip()
        console.print(Text(f"{plugin['kind']} {plugin['name']}{version}{origin}", style="bold"))
        console.print(f"{plugin['doc']}\n", highlight=False, markup=False)
        table = Table("key", "type", "default", "meaning")
        for setting in plugin["settings"]:
            default = "required" if setting["required"] else setting["default_value"] or ""
            cells = (setting["name"], setting["type"].lower(), default, setting["documentation"])
            table.add_row(*map(Text, cells))
        console.print(table)


def _rows(group: str) -> list[dict[str, str]]:
    plugins = discovery.installed(group)
    return [_row(group, plugin) | {"alias_of": discovery.alias_of(plugin, plugins)} for plugin in plugins]


def _row(group: str, plugin: discovery.Installed) -> dict[str, str]:
    version = ""
    try:
        if group in _CONTRACTS:
            version = _own_version(discovery.load(group, plugin.name, _CONTRACTS[group]))
        else:
            discovery.load_object(group, plugin.name)
    except PluginError as error:
        status = str(error)
    else:
        status = "ok"
    return {
        "kind": discovery.KIND[group],
        "name": plugin.name,
        "plugin_version": version,
        "version": plugin.version,
        "distribution": plugin.distribution,
        "distribution_version": plugin.version,
        "target": plugin.target,
        "status": status,
    }


def _known(group: str, name: str) -> bool:
    return discovery.find_name(name, {plugin.name for plugin in discovery.installed(group)}) is not None


def _describe(group: str, name: str) -> dict[str, Any]:
    """Return a plugin and its settings. Raises ``PluginError`` if it is broken."""
    kind = discovery.load(group, name, _CONTRACTS[group])
    plugins = {plugin.name: plugin for plugin in discovery.installed(group)}
    plugin = plugins[discovery.find_name(name, plugins) or name]
    return {
        "kind": discovery.KIND[group],
        "name": name,
        "plugin_version": _own_version(kind),
        "version": _own_version(kind),
        "distribution": plugin.distribution,
        "distribution_version": plugin.version,
        "doc": inspect.getdoc(kind) or "",
        "settings": kind.config_type.definition(),
    }


def _own_version(kind: Any) -> str:
    """Return what a connector says of itself; converters and transforms have no version."""
    return str(getattr(kind, "version", ""))
