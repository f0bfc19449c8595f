"""The example in docs/how-to/write-pages.md works as it is written."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from tieline.api.pages import Mark, Pages
from tieline.ui import server

GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "write-pages.md"


@pytest.fixture
def tank_pages(tmp_path):
    """Return the class of the guide, from a module with its templates beside it."""
    text = GUIDE.read_text("utf-8")
    (module,) = re.findall(r"```python\n(.*?)```", text, re.S)
    page, listing = re.findall(r"```html\n(.*?)```", text, re.S)
    templates = tmp_path / "tanks" / "templates"
    templates.mkdir(parents=True)
    (templates / "tanks.html").write_text(page)
    (templates / "tank_list.html").write_text(listing)
    file = tmp_path / "tanks" / "guide_tanks.py"
    file.write_text(module)
    spec = importlib.util.spec_from_file_location("guide_tanks", file)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "guide_tanks", loaded)
        spec.loader.exec_module(loaded)
        yield loaded.TankPages


def test_the_example_shows_its_page_acts_and_reports_what_changed(serve, tank_pages, monkeypatch):
    created = []

    def load_pages(context):
        created.append(tank_pages(context))
        return {"tanks": created[0]}

    monkeypatch.setattr(server, "load_pages", load_pages)
    browser = serve().browser()
    assert ">Tanks" in browser.get("/").html  # in the menu
    assert "<li>north: 40 %</li>" in browser.get("/tanks").html
    answer = browser.post("/tanks/north/fill")
    assert (answer.status, "<li>north: 100 %</li>" in answer.html) == (200, True)
    assert browser.post("/tanks/south/fill").status == 404
    (pages,) = created
    assert "100 %" in pages.changes({}, 1).fragments["tank-list"]
    assert pages.changes({}, 2) is None
    assert pages.alarms() == []
    pages.levels["north"] = 5
    assert [alarm.key for alarm in pages.alarms()] == ["low.north"]


def test_marks_come_from_every_plugin_that_can_say_oldest_first(serve, monkeypatch, caplog):
    contexts = []

    class Visits(Pages):
        def marks(self, subjects, start, end):
            return [Mark(subject, time, "visit") for subject in subjects for time in (start + 5, start)]

    class Broken(Pages):
        def marks(self, subjects, start, end):
            raise RuntimeError("planted")

    def load_pages(context):
        contexts.append(context)
        return {"broken": Broken(context), "visits": Visits(context)}

    monkeypatch.setattr(server, "load_pages", load_pages)
    serve()
    marks = contexts[0].marks(["p/d/a"], 10, 20)
    assert [(mark.subject, mark.time) for mark in marks] == [("p/d/a", 10), ("p/d/a", 15)]
    assert "the marks of the pages broken cannot be read" in caplog.text
