"""``tieline dev``: which class a file holds, and what is said about a file that cannot run."""

from __future__ import annotations

import sys

import pytest

from tieline.api import StartupError
from tieline.cli.developing.author_file import AuthorFile
from tieline.plugins.discovery import SINKS, SOURCES

TASK = """
from tieline.api import Config, SinkConnector, SinkTask, SourceConnector, SourceTask

class Settings(Config):
    pass

class Reader(SourceTask[Settings]):
    def poll(self, max_records, max_wait):
        return {}["missing"]
"""
SINK = """
class Writer(SinkTask[Settings]):
    def put(self, batch):
        pass
"""
CONNECTOR = """
class Meter(SourceConnector[Settings]):
    config_type, task_type = Settings, Reader
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Write a file, and return it; what it imports is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def load(text, name="written_by_an_author.py"):
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return AuthorFile(path)

    yield load
    sys.modules.pop("written_by_an_author", None)


def test_a_task_class_is_enough(load):
    assert load(TASK).find(None) == ("Reader", SOURCES)


def test_a_connector_stands_for_its_task(load):
    assert load(TASK + CONNECTOR).find(None) == ("Meter", SOURCES)


def test_of_several_classes_one_must_be_chosen(load):
    file = load(TASK + SINK)
    with pytest.raises(StartupError, match=r"has several classes: Reader, Writer\. Choose one with --class"):
        file.find(None)
    assert file.find("Writer") == ("Writer", SINKS)
    with pytest.raises(StartupError, match="has no source or sink Meter; it has: Reader, Writer"):
        file.find("Meter")


def test_a_file_in_a_package_is_imported_as_a_part_of_it(load, tmp_path):
    (tmp_path / "acme_of_this_test").mkdir()
    (tmp_path / "acme_of_this_test" / "__init__.py").touch()
    (tmp_path / "acme_of_this_test" / "words.py").write_text("WORD = 1")
    file = load(TASK + "from .words import WORD", "acme_of_this_test/reader.py")
    assert file.find(None).name == "Reader"
    assert file.module == "acme_of_this_test.reader"


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("x = 1", "written_by_an_author.py", "has no source and no sink"),
        ("x = = 1", "written_by_an_author.py", r"written_by_an_author\.py:1: invalid syntax: x = = 1"),
        (
            "x = 1\nprint(1 / (x - 1))",
            "written_by_an_author.py",
            r"division by zero\n  .*:2 in <module>: print",
        ),
        ("", "my-source.py", "not the file of a Python module; rename it"),
        ("", "queue.py", "queue is a module of Python itself"),
    ],
    ids=["no class", "syntax", "an error at import", "a hyphen", "a standard module"],
)
def test_a_file_that_cannot_run_is_explained(text, name, message, load):
    with pytest.raises(StartupError, match=message):
        load(text, name).find(None)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(StartupError, match="no such file"):
        AuthorFile(tmp_path / "nothing.py")


def test_an_error_of_a_call_is_reported_with_the_authors_line(load):
    file = load(TASK)
    messages: list[str] = []
    author_file = file.find(None)
    file.explain_failures(author_file.name, messages.append)
    task = sys.modules[file.module].Reader(None, None)
    with pytest.raises(KeyError):
        task.poll(1, 1)
    assert messages == [
        "KeyError: 'missing'\n  written_by_an_author.py:9 in poll: return {}[\"missing\"]",
    ]
