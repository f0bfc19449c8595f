"""The generated references hold every setting and every command; the pages' examples are configurations."""

import configparser
import importlib
import re
import sys
from pathlib import Path

import certifi
import pytest
from docs_generator import program, settings

from tieline.api import Config, ConfigError
from tieline.config.dead_letters import DeadLetterSettings
from tieline.config.listener import WorkerListener
from tieline.config.plan import plan
from tieline.config.restart_settings import RestartSettings
from tieline.config.settings import (
    ConnectorSettings,
    SinkSettings,
    SourceSettings,
    WorkerSettings,
)
from tieline.config.unsupported import IGNORED, PASSED_TO_CLIENTS
from tieline.registry.http.server import RegistryConfig

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONNECTORS = sorted((DOCS / "reference" / "connectors").glob("*.md"))
OF_ALL = (
    WorkerSettings,
    ConnectorSettings,
    DeadLetterSettings,
    RestartSettings,
    SourceSettings,
    SinkSettings,
    RegistryConfig,
    WorkerListener,
)


def page(name):
    return (DOCS / name).read_text("utf-8")


def plugins():
    """Every connector, converter and transform of this distribution."""
    setup = configparser.ConfigParser()
    setup.optionxform = str  # type: ignore[assignment,method-assign]
    setup.read(ROOT / "setup.cfg", "utf-8")
    groups = ("tieline.sources", "tieline.sinks", "tieline.converters", "tieline.transforms")
    lines = [line for group in groups for line in setup["options.entry_points"][group].splitlines()]
    for target in {line.partition("=")[2].strip() for line in lines if "=" in line}:
        module, _, name = target.partition(":")
        yield getattr(importlib.import_module(module), name)


def shown():
    """``(page, class)`` of each marker."""
    for path in sorted(DOCS.rglob("*.md")):
        for marker in settings.MARKER.finditer(path.read_text("utf-8")):
            yield path, settings.load(marker["config"])


def test_every_class_of_settings_is_on_one_page():
    classes = [plugin.config_type for plugin in plugins()]
    expected = {cls for cls in [*OF_ALL, *classes] if cls is not Config and cls.keys()}
    found = [cls for _, cls in shown()]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert len(expected) >= 15


@pytest.mark.parametrize("config", [cls for _, cls in shown()], ids=lambda cls: cls.__name__)
def test_the_reference_has_each_setting_with_its_default_range_and_meaning(config):
    text = settings.settings(config)
    for field, definition in zip(config.model_fields.values(), config.definition(), strict=True):
        _, found, section = text.partition(f"#### `{definition['name']}` {{ #{definition['name']} }}\n")
        section = section.partition("\n#### ")[0]
        assert found
        plain = re.sub(r"\\(?=[*_{}\[\]])", "", section).replace("&lt;", "<")
        assert definition["documentation"] in plain
        assert f"importance {definition['importance'].lower()}" in section
        if definition["required"]:
            assert "**required**" in section
        elif definition["default_value"]:
            assert f"default `{definition['default_value']}`" in section
        assert all(limit in section for limit in settings.limits(field, definition["name"]))


def test_a_setting_is_shown_with_its_range_and_its_unit():
    text = settings.settings(WorkerSettings)
    assert "default `604800000` (7 days)" in text
    assert "one of `json`, `human`" in text
    assert "default `5000` (5 s)" in text


def test_settings_of_every_connector_are_left_out_where_they_are_not_the_subject():
    marker = "<!-- settings: tieline.config.settings:SourceSettings without tieline.config.settings:{} -->"
    text = settings.insert(marker.format("ConnectorSettings"))
    assert "#### `spool.max.bytes`" in text
    assert "#### `tasks.max`" not in text


def test_the_command_line_reference_has_every_command_and_every_option(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tieline"])
    text = program.insert(page("reference/cli.md"))
    found = dict(program.walk(program.program(), ()))
    assert {path[0] for path in found} >= {"run", "status", "consume", "produce", "offsets", "lab", "query"}
    for path, command in found.items():
        section = text.partition(f"## tieline {' '.join(path)} {{ #{'-'.join(path)} }}\n")[2]
        section = section.partition("\n## ")[0]
        names = [name for option in command.params for name in option.opts if not option.hidden]
        assert [n for n in names if n.startswith("-") and n != "--help" and f"`{n}`" not in section] == []
        assert section.strip()


def test_every_ignored_setting_is_listed_and_every_passed_one_explained():
    text = page("how-to/from-kafka-connect.md")
    ignored = text.partition("## Settings that are ignored\n")[2].partition("\n## ")[0]
    first_cells = re.findall(r"^\| (`[^|]*) \|", ignored, re.MULTILINE)
    named = [key for cell in first_cells for key in re.findall(r"`([^`]+)`", cell)]
    assert sorted(named) == sorted(IGNORED)
    configuration = page("reference/configuration.md")
    assert [key for key in PASSED_TO_CLIENTS if f"`{key}" not in configuration] == []


@pytest.mark.parametrize("path", CONNECTORS, ids=lambda path: path.name)
def test_the_examples_of_a_connectors_page_are_configurations(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # pages name files of examples
    examples = re.findall(r"```properties\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    files = [tmp_path / f"{number}.properties" for number in range(len(examples))]
    for file, example in zip(files, examples, strict=True):
        file.write_text(re.sub(r"(?m)^.*credentials\.file=.*$", "", example))  # that file is not here
    assert len(plan(None, files).connectors) == len(examples) > 0


def test_the_files_of_the_raspberry_pi_are_a_worker_with_two_connectors(tmp_path, monkeypatch):
    monkeypatch.setenv("MONGO_URI", "mongodb://127.0.0.1:27017")
    blocks = re.findall(r"```yaml\n(.*?)```", page("how-to/raspberry-pi.md"), re.DOTALL)
    files = [tmp_path / f"{number}.yaml" for number in range(len(blocks))]
    for file, block in zip(files, blocks, strict=True):
        file.write_text(re.sub(r"(?m)^.*credentials\.file.*$", "", block))
    assert len(plan(files[0], files[1:]).connectors) == 2


def test_the_settings_of_a_secured_kafka_are_known_to_its_clients(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", page("how-to/secured-kafka.md"), re.DOTALL)
    text = block.replace("/etc/tieline/ca.pem", certifi.where()).replace("/etc/tieline", str(tmp_path))
    (tmp_path / "secrets.properties").write_text("kafka_password=opensesame\n")
    worker, connector = tmp_path / "worker.yaml", tmp_path / "lines.properties"
    connector.write_text("name=lines\nconnector.class=file\nfile=in.txt\ntopic=lines\n")
    worker.write_text(text)
    assert len(plan(worker, [connector]).connectors) == 1
    worker.write_text(text.replace("sasl.username", "sasl.user"))
    with pytest.raises(ConfigError, match=r"sasl\.user"):
        plan(worker, [connector])
