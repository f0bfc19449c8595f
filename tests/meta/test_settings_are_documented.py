"""Every setting stands in the documents, with its default; no document names one that is not there."""

import configparser
import importlib
import re
from pathlib import Path

import pytest

from tieline.api import Config
from tieline.config.plan import plan
from tieline.config.settings import (
    IGNORED,
    PASSED_TO_CLIENTS,
    ConnectorSettings,
    SinkSettings,
    SourceSettings,
    WorkerSettings,
)
from tieline.converters.avro import AvroConverterConfig
from tieline.converters.json import JsonConverterConfig
from tieline.converters.plain import StringConverterConfig
from tieline.transforms.filter import FilterConfig
from tieline.transforms.insert_header import InsertHeaderConfig
from tieline.transforms.regex_router import RegexRouterConfig
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.file.sink import FileSinkConfig
from tieline_connectors.file.source import FileSourceConfig
from tieline_connectors.mongo.config import MongoSinkConfig
from tieline_connectors.volttron_bus.sink_config import VolttronBusSinkConfig
from tieline_connectors.volttron_bus.source_config import VolttronBusConfig

ROOT = Path(__file__).parents[2]
COMMON = ConnectorSettings.keys()
TABLES: dict[tuple[str, str], list[type[Config]]] = {
    ("bus-source.md", "Settings"): [VolttronBusConfig],
    ("bus-sink.md", "Settings"): [VolttronBusSinkConfig],
    ("commands.md", "Settings"): [CommandSinkConfig],
    ("mongo-sink.md", "Settings"): [MongoSinkConfig],
    ("files.md", "Source"): [FileSourceConfig],
    ("files.md", "Sink"): [FileSinkConfig],
    ("configuration.md", "Worker"): [WorkerSettings],
    ("configuration.md", "Every connector"): [ConnectorSettings],
    ("configuration.md", "Sources"): [SourceSettings],
    ("configuration.md", "Sinks"): [SinkSettings],
    ("configuration.md", "Converters"): [AvroConverterConfig, JsonConverterConfig, StringConverterConfig],
    ("configuration.md", "Transforms"): [FilterConfig, InsertHeaderConfig, RegexRouterConfig],
}


def page(name):
    return (ROOT / "docs" / name).read_text("utf-8")


def told(name, heading):
    """The table of settings below a heading: key → what its column of defaults says."""
    (section,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^#+ |\Z)", page(name), re.MULTILINE | re.DOTALL)
    table = section.partition("| Key | Default | Meaning |\n|---|---|---|\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([^`]+)`[^|]*\| ([^|]*)\|", table, re.MULTILINE)
    assert len(rows) == len(table.splitlines())
    return {key.partition(".<")[0]: default.strip() for key, default in rows}


def definitions(configs):
    """What the code knows; settings of every connector only where they are the subject."""
    left_out = COMMON if any(c in (SourceSettings, SinkSettings) for c in configs) else []
    return {d["name"]: d for c in configs for d in c.definition() if d["name"] not in left_out}


@pytest.mark.parametrize("place", TABLES, ids=" ".join)
def test_a_page_names_exactly_the_settings_that_there_are(place):
    assert set(told(*place)) == set(definitions(TABLES[place]))


@pytest.mark.parametrize("place", TABLES, ids=" ".join)
def test_a_page_tells_the_default_of_each_setting(place):
    cells = told(*place)
    wrong = []
    for key, definition in definitions(TABLES[place]).items():
        default, cell = definition["default_value"], cells[key]
        if definition["required"] != (cell == "required"):
            wrong.append((key, cell, "required"))
        elif default and re.findall(r"[\w./-]+", cell)[:1] != [default]:
            wrong.append((key, cell, default))
    assert wrong == []


def test_every_connector_of_ours_has_a_page():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    groups = setup["options.entry_points"]
    lines = "\n".join(groups[group] for group in ("tieline.sources", "tieline.sinks")).split("\n")
    targets = {line.partition("=")[2].strip() for line in lines if line.strip()}
    found = [getattr(importlib.import_module(t.partition(":")[0]), t.partition(":")[2]) for t in targets]
    assert len(found) >= 4
    documented = {config for configs in TABLES.values() for config in configs}
    assert {connector.config_type for connector in found} - documented == set()


def test_what_is_ignored_or_passed_to_clients_is_told():
    text = page("configuration.md")
    ignored = text.partition("## What of Kafka Connect's files is ignored\n")[2].partition("\n## ")[0]
    first_cells = re.findall(r"^\| (`[^|]*) \|", ignored, re.MULTILINE)
    named = [key for cell in first_cells for key in re.findall(r"`([^`]+)`", cell)]
    assert sorted(named) == sorted(IGNORED)
    assert [key for key in PASSED_TO_CLIENTS if f"`{key}" not in text] == []


@pytest.mark.parametrize("name", ["bus-sink.md", "bus-source.md", "commands.md", "files.md", "mongo-sink.md"])
def test_the_examples_of_a_page_are_configurations(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # pages name files of examples
    examples = re.findall(r"```properties\n(.*?)```", page(name), re.DOTALL)
    files = [tmp_path / f"{number}.properties" for number in range(len(examples))]
    for file, example in zip(files, examples, strict=True):
        file.write_text(re.sub(r"(?m)^.*credentials\.file=.*$", "", example))  # that file is not here
    assert len(plan(None, files).connectors) == len(examples) > 0


@pytest.mark.parametrize("document", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.name)
def test_a_test_that_a_document_names_is_there(document):
    named = set(re.findall(r"`(test_\w+)`", document.read_text("utf-8")))
    tests = [path for root in ("tests", "plugins") for path in (ROOT / root).rglob("test_*.py")]
    code = "".join(path.read_text("utf-8") for path in tests)
    assert {name for name in named if f"def {name}(" not in code} == set()
