from __future__ import annotations

import sys

import pytest

from tieline.api import PluginError, SinkConnector, SourceConnector
from tieline.plugins import discovery
from tieline.plugins.discovery import SINKS, SOURCES
from tieline.testing.distribution import distribution
from tieline_connectors.file.sink import FileSink
from tieline_connectors.file.source import FileSource

SOURCE = """
from tieline.api import SourceConnector

class Mine(SourceConnector):
    pass
"""


def load_error(group: str, name: str, contract: type = SourceConnector) -> str:
    with pytest.raises(PluginError) as caught:
        discovery.load(group, name, contract)
    return str(caught.value)


def test_a_plugin_of_another_distribution_is_loaded_by_its_name(tmp_path):
    with distribution(
        tmp_path, "fixture_good", {SOURCES: {"mine": "fixture_mine:Mine"}}, {"fixture_mine": SOURCE}
    ):
        connector = discovery.load(SOURCES, "mine", SourceConnector)
        assert issubclass(connector, SourceConnector)
        assert connector.__module__ == "fixture_mine"


TASKS = """
from tieline.api import Config, SinkTask, SourceTask, setting

class Mine(Config):
    place: str = setting("place", doc="Where.")

class Reads(SourceTask[Mine]):
    version = "7"
    def poll(self, max_records, max_wait):
        return []

class ReadsMore(Reads):
    pass

class NoSettings(SinkTask):
    def put(self, batch):
        pass
"""


@pytest.mark.parametrize("name", ["Reads", "ReadsMore"])
def test_an_entry_point_may_name_a_task_and_its_settings_are_the_tasks_type_parameter(tmp_path, name):
    with distribution(
        tmp_path, "fixture_task", {SOURCES: {"mine": f"fixture_task:{name}"}}, {"fixture_task": TASKS}
    ):
        connector = discovery.load(SOURCES, "mine", SourceConnector)
        assert issubclass(connector, SourceConnector)
        assert connector.task_type.__name__ == name
        assert list(connector.config_type.keys()) == ["place"]


def test_a_task_without_settings_is_reported_with_the_fix(tmp_path):
    with distribution(
        tmp_path, "fixture_task", {SINKS: {"mine": "fixture_task:NoSettings"}}, {"fixture_task": TASKS}
    ):
        text = load_error(SINKS, "mine", SinkConnector)
    assert "NoSettings names no settings: write class NoSettings(SinkTask[MyConfig])" in text


def test_a_plugin_is_gone_when_its_distribution_is(tmp_path):
    with distribution(
        tmp_path, "fixture_good", {SOURCES: {"mine": "fixture_mine:Mine"}}, {"fixture_mine": SOURCE}
    ):
        pass
    assert "no source is called 'mine'" in load_error(SOURCES, "mine")


def test_an_unknown_name_lists_the_known_ones_and_suggests_the_nearest():
    text = load_error(SOURCES, "fiel")
    assert text == ("no source is called 'fiel'; did you mean 'file'? installed sources: file, volttron_bus")


def test_an_unknown_name_without_a_similar_one_gets_no_suggestion():
    text = load_error(SOURCES, "zzzzzzzz")
    assert text == "no source is called 'zzzzzzzz'; installed sources: file, volttron_bus"


def test_a_broken_plugin_is_reported_with_its_distribution_and_the_cause(tmp_path):
    with distribution(
        tmp_path,
        "fixture_bad",
        {SOURCES: {"broken": "fixture_broken:Mine"}},
        {"fixture_broken": "import no_such_module_anywhere"},
    ):
        text = load_error(SOURCES, "broken")
    assert text == (
        "the source 'broken' of fixture_bad 1.0 is broken: fixture_broken:Mine cannot be imported: "
        "ModuleNotFoundError: No module named 'no_such_module_anywhere'"
    )


@pytest.mark.parametrize("error", ["AssertionError", "RecursionError", "ValueError"])
def test_whatever_a_plugin_raises_at_its_import_is_a_broken_plugin(error, tmp_path):
    with distribution(
        tmp_path,
        "fixture_bad",
        {SOURCES: {"broken": "fixture_broken:Mine"}},
        {"fixture_broken": f"raise {error}('at import')"},
    ):
        text = load_error(SOURCES, "broken")
    assert text.endswith(f"fixture_broken:Mine cannot be imported: {error}: at import")


def test_a_plugin_whose_class_is_missing_is_reported_as_broken(tmp_path):
    with distribution(
        tmp_path, "fixture_bad", {SOURCES: {"gone": "fixture_gone:Mine"}}, {"fixture_gone": ""}
    ):
        text = load_error(SOURCES, "gone")
    assert "the source 'gone' of fixture_bad 1.0 is broken" in text
    assert "Mine" in text


def test_a_broken_neighbour_affects_no_other_plugin_and_is_not_imported(tmp_path):
    with distribution(
        tmp_path,
        "fixture_both",
        {SOURCES: {"broken": "fixture_broken:Mine", "mine": "fixture_mine:Mine"}},
        {"fixture_mine": SOURCE, "fixture_broken": "raise SystemError('imported')"},
    ):
        assert discovery.load(SOURCES, "mine", SourceConnector).__name__ == "Mine"
        assert discovery.load(SOURCES, "file", SourceConnector) is FileSource
        assert "fixture_broken" not in sys.modules


@pytest.mark.parametrize(
    "content", [b"[tieline.sinks]\nboom badone\n", b"[tieline.sinks]\n\xff = badone:X\n"]
)
def test_an_unreadable_distribution_affects_no_other_and_is_reported_with_its_location(tmp_path, content):
    with distribution(tmp_path, "fixture_odd", {SINKS: {"mine": "fixture_odd:Mine"}}, {"fixture_odd": ""}):
        (info,) = tmp_path.glob("*/*.dist-info")
        (info / "entry_points.txt").write_bytes(content)
        assert discovery.load(SOURCES, "file", SourceConnector) is FileSource
        assert list(discovery.unreadable()) == [str(info)]
        assert f"{info}: its entry points cannot be read" in load_error(SINKS, "mine")


def test_a_distribution_without_a_name_is_one_of_an_unknown_owner(tmp_path):
    with distribution(tmp_path, "fixture_odd", {SOURCES: {"file": "fixture_odd:X"}}, {"fixture_odd": ""}):
        (info,) = tmp_path.glob("*/*.dist-info")
        (info / "METADATA").unlink()
        assert "an unknown distribution (fixture_odd:X)" in load_error(SOURCES, "file")


def test_a_plugin_that_ends_the_interpreter_when_it_is_imported_is_broken(tmp_path):
    with distribution(
        tmp_path,
        "fixture_exits",
        {SOURCES: {"mine": "fixture_exits:Mine"}},
        {"fixture_exits": "raise SystemExit('no numpy')"},
    ):
        assert "cannot be imported: SystemExit: no numpy" in load_error(SOURCES, "mine")


def test_listing_the_plugins_imports_none_of_them(tmp_path):
    with distribution(
        tmp_path,
        "fixture_bad",
        {SOURCES: {"broken": "fixture_broken:Mine"}},
        {"fixture_broken": "raise SystemError('imported')"},
    ):
        listed = discovery.installed(SOURCES)
    assert discovery.Installed("broken", "fixture_bad", "1.0", "fixture_broken:Mine") in listed


@pytest.mark.parametrize("between", [{}, {"other": "fixture_one:Mine"}], ids=["neighbours", "one between"])
def test_a_name_that_two_distributions_give_is_an_error_that_names_both(between, tmp_path):
    with (
        distribution(
            tmp_path,
            "fixture_one",
            {SOURCES: {"mine": "fixture_one:Mine", **between}},
            {"fixture_one": SOURCE},
        ),
        distribution(
            tmp_path, "fixture_two", {SOURCES: {"mine": "fixture_two:Mine"}}, {"fixture_two": SOURCE}
        ),
    ):
        text = load_error(SOURCES, "mine")
    assert text == (
        "the source 'mine' is installed 2 times: fixture_one 1.0 (fixture_one:Mine), "
        "fixture_two 1.0 (fixture_two:Mine); uninstall all but one"
    )


def test_a_plugin_with_the_name_of_a_built_in_one_is_an_error_that_names_both(tmp_path):
    with distribution(
        tmp_path, "fixture_two", {SOURCES: {"file": "fixture_two:Mine"}}, {"fixture_two": SOURCE}
    ):
        text = load_error(SOURCES, "file")
    assert "fixture_two 1.0 (fixture_two:Mine)" in text
    assert "tieline_connectors.file.source:FileSource" in text


def test_the_same_name_in_two_groups_is_not_a_conflict():
    assert discovery.load(SOURCES, "file", SourceConnector) is FileSource
    assert discovery.load(SINKS, "file", FileSink) is FileSink


@pytest.mark.parametrize("what", ["number", "transform"])
def test_a_plugin_that_is_not_a_subclass_of_its_contract_is_rejected(what, tmp_path):
    text = "from tieline.api import Transform as transform\nnumber = 5\n"
    with distribution(
        tmp_path, "fixture_odd", {SOURCES: {"odd": f"fixture_odd:{what}"}}, {"fixture_odd": text}
    ):
        error = load_error(SOURCES, "odd")
    assert (
        error == f"the source 'odd' of fixture_odd 1.0 is broken: fixture_odd:{what} is not a SourceConnector"
    )


@pytest.mark.parametrize(
    "name",
    [
        "org.apache.kafka.connect.file.FileStreamSourceConnector",
        "FileStreamSourceConnector",
        "FileStreamSource",
    ],
)
def test_a_java_class_name_and_its_short_forms_mean_the_same_plugin(name):
    assert discovery.load(SOURCES, name, SourceConnector) is FileSource


def test_only_the_last_part_of_a_dotted_name_is_a_short_form():
    assert discovery.find_name("stream", {"volttron.stream"}) == "volttron.stream"
    assert discovery.find_name("file", {"filex", "xfile"}) is None
