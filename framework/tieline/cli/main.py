"""The program ``tieline``. Commands that come with a connector are plugins (``tieline.commands``)."""

from __future__ import annotations

import os
import sys

import typer

from tieline import __version__
from tieline.api import StartupError
from tieline.cli.command_context import WorkerCommandContext
from tieline.cli.commands.backup import backup, restore
from tieline.cli.commands.consume import consume
from tieline.cli.commands.dev import dev
from tieline.cli.commands.dlq import dlq
from tieline.cli.commands.explain import explain
from tieline.cli.commands.new import new
from tieline.cli.commands.offsets import offsets
from tieline.cli.commands.plugins import plugins as plugins_command
from tieline.cli.commands.produce import produce
from tieline.cli.commands.registry import registry
from tieline.cli.commands.run import run
from tieline.cli.commands.schemas import schemas
from tieline.cli.commands.status import status
from tieline.cli.commands.support_bundle import support_bundle
from tieline.cli.commands.trace import trace
from tieline.cli.commands.users import users
from tieline.plugins import discovery
from tieline.plugins import path as plugin_path

app = typer.Typer(
    name="tieline",
    help="Moves records between VOLTTRON, Kafka and MongoDB without losing any.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(run)
app.command()(dev)
app.command()(status)
app.command()(explain)
app.command()(backup)
app.command()(restore)
app.command("support-bundle")(support_bundle)
app.command()(trace)
app.command()(consume)
app.command()(produce)
app.add_typer(dlq, name="dlq")
app.add_typer(new, name="new")
app.add_typer(offsets, name="offsets")
app.add_typer(plugins_command, name="plugins")
app.add_typer(registry, name="registry")
app.add_typer(schemas, name="schemas")
app.add_typer(users, name="users")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the program. A ``StartupError`` becomes one message and exit status 2."""
    try:
        plugin_path.activate(os.environ.get("TIELINE_PLUGIN_PATH", ""), "TIELINE_PLUGIN_PATH")
        for plugin in discovery.installed(discovery.COMMANDS):
            add_command(plugin.name)
        app(obj=WorkerCommandContext())
    except StartupError as error:
        typer.secho(str(error), err=True, fg=typer.colors.RED)
        sys.exit(2)


def add_command(name: str) -> None:
    """Add a plugin's command. It is imported only if it is the one to run, or for the help."""
    requested = [argument for argument in sys.argv[1:] if not argument.startswith("-")][:1]
    if requested and requested != [name]:
        return
    try:
        command = discovery.load_object(discovery.COMMANDS, name)
    except StartupError as error:
        if requested:
            raise
        typer.secho(f"not in this help: {error}", err=True, fg=typer.colors.YELLOW)
        return
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command(name)(command)


if __name__ == "__main__":
    main()
