"""The command line reference: Markdown from the program itself, its plugins' commands included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import typer

from tieline.cli.main import app
from tieline.plugins import discovery

MARKER = "<!-- commands -->"
"""A page has this line where the commands are shown."""

_KINDS = {int: "NUMBER", float: "NUMBER", Path: "PATH"}


def insert(page: str) -> str:
    """Return the page with the marker replaced by all commands."""
    return page.replace(MARKER, "\n".join(commands())) if MARKER in page else page


def program() -> Any:
    """Return the whole program, with the commands that come with connectors, as click sees it."""
    whole = typer.Typer(name="tieline")
    whole.registered_commands = list(app.registered_commands)
    whole.registered_groups = list(app.registered_groups)
    for plugin in discovery.installed(discovery.COMMANDS):
        command = discovery.load_object(discovery.COMMANDS, plugin.name)
        if isinstance(command, typer.Typer):
            whole.add_typer(command, name=plugin.name)
        else:
            whole.command(plugin.name)(command)
    return typer.main.get_command(whole)


def commands() -> Iterator[str]:
    """Yield a section for each command: usage, help, arguments and options."""
    for path, command in sorted(walk(program(), ()), key=lambda found: found[0]):
        yield from _section(path, command)


def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that can be called, with the words that call it."""
    inner = getattr(command, "commands", {})
    if path and (not inner or command.invoke_without_command):
        yield path, command
    for name, each in inner.items():
        if not each.hidden:
            yield from walk(each, (*path, name))


def _section(path: tuple[str, ...], command: Any) -> Iterator[str]:
    shown = [param for param in command.params if not getattr(param, "hidden", False)]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    options = [param for param in shown if param.param_type_name == "option" and param.name != "help"]
    words = " ".join(["tieline", *path])
    usage = " ".join([words, *(["[OPTIONS]"] if options else []), *map(_metavar, arguments)])
    yield f"## {words} {{ #{'-'.join(path)} }}\n{_text(command.help or '')}\n\n```\n{usage}\n```\n"
    if arguments:
        yield "| Argument | Meaning |\n|---|---|"
        yield from (
            f"| `{_metavar(each)}` | {_cell(getattr(each, 'help', '') or '')} |" for each in arguments
        )
        yield ""
    if options:
        yield "| Option | Default | Meaning |\n|---|---|---|"
        yield from (f"| {_names(each)} | {_default(each)} | {_meaning(each)} |" for each in options)
        yield ""


def _metavar(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    name = f"{name}..." if argument.nargs == -1 and not name.endswith("...") else name
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _names(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {_kind(option)}"


def _kind(option: Any) -> str:
    annotation = option.type_descriptor.annotation
    annotation = next(iter(get_args(annotation)), annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{choice.value}`" for choice in annotation)
    return str(option.metavar or _KINDS.get(annotation, "TEXT"))


def _default(option: Any) -> str:
    default = option.default
    if option.required:
        return "required"
    if option.is_flag or default is None or callable(default) or default in ((), [], ""):
        return ""
    return f"`{getattr(default, 'value', default)}`"


def _meaning(option: Any) -> str:
    meaning = _cell(option.help or "")
    variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar or []
    also = f" Environment: {', '.join(f'`{each}`' for each in variables)}." if variables else ""
    limits = f" {option.min} to {option.max}." if option.min is not None else ""
    return f"{meaning}{limits}{' May be repeated.' if option.multiple else ''}{also}"


def _text(text: str) -> str:
    """Help is plain text with ``code`` in double backquotes."""
    return re.sub(r"``([^`]+)``", r"`\1`", text.replace("\f", "\n").strip())


def _cell(text: str) -> str:
    return _text(" ".join(text.split())).replace("|", "\\|").replace("<", "&lt;")
