"""``tieline command`` and ``tieline policy``: the command line of the command sink."""

from __future__ import annotations

import typer

from tieline_connectors.command.cli.check import check, trust, verify
from tieline_connectors.command.cli.history import history
from tieline_connectors.command.cli.send import prompt, send

# -5 is a value, not an option.
_VALUES = {"ignore_unknown_options": True}

command = typer.Typer(help="Send commands to devices, and show their results.", no_args_is_help=True)
command.command(context_settings=_VALUES)(send)
command.command()(prompt)
command.command()(history)
_audit = typer.Typer(help="The audit log of a command sink.", no_args_is_help=True)
_audit.command()(verify)
command.add_typer(_audit, name="audit")
_clock = typer.Typer(help="The wall clock of a command sink's computer.", no_args_is_help=True)
_clock.command()(trust)
command.add_typer(_clock, name="clock")

policy = typer.Typer(help="The policy of a command sink: who may write what.", no_args_is_help=True)
policy.command(context_settings=_VALUES)(check)


@_audit.callback()
def _audit_group() -> None:
    """Keep ``verify`` as a subcommand, although it is the only one."""


@_clock.callback()
def _clock_group() -> None:
    """Keep ``trust`` as a subcommand, although it is the only one."""


@policy.callback()
def _policy_group() -> None:
    """Keep ``check`` as a subcommand, although it is the only one."""
