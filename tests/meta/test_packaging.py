"""setup.cfg says what is on disk, and every entry point is what its group promises."""

from __future__ import annotations

import configparser
import importlib
from collections import Counter
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tieline.api import Converter, SinkConnector, SourceConnector, Transform
from tieline.plugins.discovery import KIND

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "plugins" / "template"
CONTRACTS = {
    "tieline.sources": SourceConnector,
    "tieline.sinks": SinkConnector,
    "tieline.converters": Converter,
    "tieline.transforms": Transform,
}


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ROOT / "setup.cfg", "utf-8")
    return parser


def lines(section: str, key: str) -> list[str]:
    return [line.strip() for line in setup_cfg()[section][key].splitlines() if line.strip()]


def named_entry_points() -> list[tuple[str, str, str]]:
    entries = [
        (group, *(part.strip() for part in line.split("=", 1)))
        for group in setup_cfg()["options.entry_points"]
        for line in lines("options.entry_points", group)
        if not line.startswith("#")
    ]
    return [(group, name, target) for group, name, target in entries]


def test_the_packages_are_the_folders_with_an_init_file():
    roots = dict(line.split(" = ") for line in lines("options", "package_dir"))
    on_disk = {
        ".".join([package, *folder.relative_to(ROOT / root).parts])
        for package, root in roots.items()
        for folder in [init.parent for init in (ROOT / root).rglob("__init__.py")]
        if folder.is_relative_to(TEMPLATE) is (folder == TEMPLATE)  # below it is what is copied
    }
    assert set(lines("options", "packages")) == on_disk


def test_every_folder_with_modules_has_an_init_file():
    roots = dict(line.split(" = ") for line in lines("options", "package_dir"))
    folders = {module.parent for root in roots.values() for module in (ROOT / root).rglob("*.py")}
    folders -= {ROOT / roots["tieline_lab"] / "files"}  # package data: what the platform runs, not we
    folders -= {folder for folder in folders if folder.is_relative_to(TEMPLATE)}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_no_plugin_name_is_used_twice():
    counted = Counter((group, name) for group, name, _ in named_entry_points())
    assert [key for key, count in counted.items() if count > 1] == []


def test_every_group_is_one_that_the_runtime_reads():
    assert {group for group, _, _ in named_entry_points()} <= {"console_scripts", "pytest11", *KIND}


@pytest.mark.parametrize("entry", named_entry_points(), ids=lambda entry: f"{entry[0]}:{entry[1]}")
def test_every_entry_point_loads_and_keeps_its_contract(entry):
    group, _, target = entry
    module, _, attribute = target.partition(":")
    found = importlib.import_module(module)
    if group == "pytest11":
        assert callable(found.pytest_configure)
        return
    found = getattr(found, attribute)
    if group in CONTRACTS:
        assert issubclass(found, CONTRACTS[group])
    else:
        assert callable(found)


def test_the_installed_distribution_has_the_same_entry_points():
    """An editable install that is older than setup.cfg misleads every test below it."""
    installed = {(e.group, e.name, e.value) for e in distribution("tieline").entry_points}
    assert installed == set(named_entry_points())


def test_every_connector_has_documented_settings_and_one_version():
    for group in ("tieline.sources", "tieline.sinks"):
        for entry_group, _, target in named_entry_points():
            if entry_group == group:
                module, attribute = target.split(":")
                kind = getattr(importlib.import_module(module), attribute)
                assert kind.version
                assert all(setting["documentation"] for setting in kind.config_type.definition())
