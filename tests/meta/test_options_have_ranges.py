"""No number at the command line is so large or so odd that something behind it breaks."""

import sys

import typer

from tieline.cli import main
from tieline.plugins import discovery


def _options(command, path):
    for name, inner in getattr(command, "commands", {}).items():
        yield from _options(inner, [*path, name])
    for option in command.params:
        yield " ".join([*path, *option.opts]), option


def test_every_number_has_a_smallest_and_a_largest_value(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tieline"])
    for plugin in discovery.installed(discovery.COMMANDS):
        main.add_command(plugin.name)
    options = dict(_options(typer.main.get_command(main.app), []))
    numbers = {n: o for n, o in options.items() if str(o.type_descriptor.annotation) in _NUMBERS}
    assert "consume --limit" in numbers
    assert "query --limit" in numbers
    assert [name for name, option in numbers.items() if option.min is None or option.max is None] == []


_NUMBERS = {str(kind) for kind in (int, float, list[int], list[float])}
