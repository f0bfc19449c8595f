"""What every page of a worker has: its menu, templates, assets, time zone and theme."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tieline.api.pages import Mark, Pages, Route, Viewer
from tieline.ui.access import FORM_TOKEN
from tieline.ui.sessions import Sessions, Visit
from tieline.ui.templating import Templates, zone_of

log = logging.getLogger(__name__)

BASE = "/ui"
TIME_ZONE, THEME = "time_zone", "theme"
"""Names of preferences, and of the cookies in which a browser says what it would choose."""
_THEMES = ("light", "dark")


class Entry(NamedTuple):
    """One entry of the menu."""

    text: str
    path: str


class Site:
    """The pages of one worker: those of the framework, then those of plugins, in the order of the menu."""

    def __init__(self, worker: str, contributions: Mapping[str, Pages], sessions: Sessions) -> None:
        self._worker = worker
        self._sessions = sessions
        self.contributions = contributions
        self.static = _folders(contributions, "static")
        self._templates = Templates(_folders(contributions, "templates"))
        self._versions = {name: _version(folder) for name, folder in self.static.items()}
        self.routes: list[Route] = [route for pages in contributions.values() for route in pages.routes()]
        self.menu = [Entry(route.navigation, route.path) for route in self.routes if route.navigation]

    def asset(self, path: str) -> str:
        """Return the address of a file in a plugin's folder ``static``, which changes with its content."""
        name, _, _ = path.partition("/")
        return f"{BASE}/static/{path}?v={self._versions[name]}"

    def has_page(self, path: str) -> bool:
        """Return whether there is a page with this route."""
        return any(route.path == path and route.method == "GET" for route in self.routes)

    def marks(self, subjects: Collection[str], start: int, end: int) -> Sequence[Mark]:
        """Return what happened to subjects in a range, oldest first, from all plugins that can say."""
        marks: list[Mark] = []
        for name, pages in self.contributions.items():
            try:
                marks += pages.marks(subjects, start, end)
            except Exception:  # a chart is drawn without the marks of a plugin that fails
                log.exception("the marks of the pages %s cannot be read", name)
        return sorted(marks, key=lambda mark: mark.time)

    def fragment(self, template: str, values: Mapping[str, Any]) -> str:
        """Return the HTML of a part of a page."""
        return self._templates.render(template, {"base": BASE, "time_zone": "UTC", **values})

    def page(self, template: str, title: str, values: Mapping[str, Any], view: View) -> str:
        """Return the HTML of a page."""
        common = {
            "base": BASE,
            "asset": self.asset,
            "title": title,
            "worker": self._worker,
            "menu": self.menu if view.visit.viewer else (),
            "viewer": view.visit.viewer,
            "current": view.path,
            "time_zone": view.time_zone,
            "theme": view.theme,
            "boot": view.boot,
            "form_token_name": FORM_TOKEN,
            "form_token": self._sessions.form_token(view.visit.token),
            "can_sign_out": self._sessions.needs_sign_in,
        }
        return self._templates.render(template, {**values, **common})


class View(NamedTuple):
    """What a page depends on besides its content: the person, the address, the zone, the theme."""

    visit: Visit
    path: str
    time_zone: str
    theme: str
    boot: str


def chosen_zone(preference: str, cookie: str) -> str:
    """Return the time zone of a person: chosen here, else the browser's, else UTC."""
    return next((zone for zone in (preference, cookie) if zone and is_zone(zone)), "UTC")


def is_zone(name: str) -> bool:
    """Return whether a time zone with this name exists."""
    return name == "UTC" or str(zone_of(name)) == name


def chosen_theme(cookie: str) -> str:
    """Return ``light`` or ``dark``; empty: as the browser prefers."""
    return cookie if cookie in _THEMES else ""


def viewer_key(viewer: Viewer | None) -> str:
    """Return the name under which preferences of a person are stored."""
    return viewer.name if viewer else ""


def _folders(contributions: Mapping[str, Pages], name: str) -> dict[str, Path]:
    own = {"tieline": Path(__file__).parent / name}
    plugins = {plugin: _beside(pages) / name for plugin, pages in contributions.items()}
    return {plugin: folder for plugin, folder in {**plugins, **own}.items() if folder.is_dir()}


def _beside(pages: Pages) -> Path:
    file = sys.modules[type(pages).__module__].__file__
    assert file is not None
    return Path(file).parent


def _version(folder: Path) -> str:
    files: Iterable[Path] = sorted(path for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
