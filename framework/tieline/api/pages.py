"""The interface for pages of a connector (entry points ``tieline.pages``).

class TankPages(Pages):
    title = "Tanks"

    def routes(self):
        return [Route("/tanks", self.show, navigation="Tanks")]

    def show(self, request: PageRequest) -> Page:
        return Page("tanks.html", "Tanks", {"tanks": self._tanks()})

The templates are Jinja2 files in the folder ``templates`` beside the class's module; they extend
``page.html``. The folder ``static`` beside it is served below ``/ui/static/<entry point>/``. All that a
page shows is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from tieline.api.commands import TopicClient

Role: TypeAlias = Literal["viewer", "operator", "admin"]
"""What a person may do, from the least to the most."""

ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")


class Viewer(NamedTuple):
    """The person who is signed in. Without users, on loopback: the local user, as an operator."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Return whether this person may do what the role may."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One request. ``form`` is empty unless it is a POST, whose origin and token have been checked.

    ``path``: the parameters in the route's path. ``query`` and ``form``: of a repeated name the last value.
    ``repeated``: every value of each name in the query.
    """

    viewer: Viewer
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]
    time_zone: str
    """The IANA name of the zone that this person reads times in."""
    repeated: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Page(NamedTuple):
    """A page from a template, which gets ``values`` beside what every page has."""

    template: str
    title: str
    values: Mapping[str, Any] = {}
    status: int = 200


class Redirect(NamedTuple):
    """Continue at another page: a path below ``/ui``, such as ``/tanks?level=low``."""

    path: str


class Download(NamedTuple):
    """A file that is sent while it is produced. ``parts`` is consumed in a thread and closed at the end."""

    name: str
    media_type: str
    parts: Iterator[str]


class JsonAnswer(NamedTuple):
    """A value for a script of the page. NaN and infinities are rejected."""

    value: Any


Answer: TypeAlias = Page | Redirect | Download | JsonAnswer


class PageError(Exception):
    """Answer with an error page: what failed, why, and the fix."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Route:
    """A page, or an action (``POST``).

    ``path``: below ``/ui``, such as ``/tanks/{name}``; a parameter matches one segment, ``{name:path}``
    several. ``handler``: called in a thread, may block; raises ``PageError``. ``navigation``: the text of its
    entry in the menu; empty: none. ``role``: who may use it; by default a viewer may open pages, and an
    operator may act. Before and after an action the server writes to the audit log who requested what from
    where, and what became of it.
    """

    path: str
    handler: Callable[[PageRequest], Answer]
    method: Literal["GET", "POST"] = "GET"
    navigation: str = ""
    role: Role | None = None
    personal: bool = False
    """Whether the action changes only what this person sees. Viewers may use it, and it is not audited."""

    @property
    def needed_role(self) -> Role:
        """The least role that may use it."""
        return self.role or ("viewer" if self.method == "GET" or self.personal else "operator")


class Update(NamedTuple):
    """What has changed in a channel since a version.

    ``version``: pass it the next time. ``fragments``: new HTML by the id of the element whose content it is,
    rendered by ``PageContext.render``, which escapes values. ``data``: JSON for a script of the page.
    """

    version: int
    fragments: Mapping[str, str] = {}
    data: Any = None


Channel: TypeAlias = Callable[[Mapping[str, str], int], Update | None]
"""``channel(arguments, since)``: what changed after version ``since`` (0: everything), or ``None``.

Beside those of the page, ``arguments`` has ``viewer`` (the person's name) and ``time_zone``. It is called
in the server's event loop up to four times a second for each open page, so it must not block.
"""


class Alarm(NamedTuple):
    """Something abnormal now. The list of alarms has it as long as ``Pages.alarms`` returns it."""

    key: str
    """Stable while the cause lasts; the alarm is shelved by it."""
    severity: Literal["warning", "critical"]
    subject: str
    """What is abnormal: a point, a connector, the clock."""
    text: str
    """What is wrong, and the fix."""
    since_ms: int
    path: str = ""
    """The page about it, below ``/ui``."""


class Mark(NamedTuple):
    """Something that happened to a subject, for a chart of it: a command, a visit of a technician."""

    subject: str
    """What it happened to, as it was asked for."""
    time: int
    """When, in microseconds since 1970."""
    text: str
    """What happened, in a few words."""
    path: str = ""
    """The page about it, below ``/ui``."""


class RunningConnector(NamedTuple):
    """A connector of this worker. ``settings`` are resolved and may contain secrets: never show them."""

    name: str
    plugin: str
    kind: Literal["source", "sink"]
    settings: Mapping[str, str]
    topics: Sequence[str]
    """The topics that a sink reads by name."""


class PageContext(Protocol):
    """What the pages of a worker may use. Every method may be called from any thread."""

    @property
    def connectors(self) -> Sequence[RunningConnector]:
        """The connectors of this worker."""

    @property
    def data_dir(self) -> Path:
        """The worker's private folder."""

    def ledgers(self) -> Mapping[str, Mapping[str, Any]]:
        """Return each connector's state and counters by its name, at most a second old."""

    def topics(self) -> AbstractContextManager[TopicClient]:
        """Open the worker's topics. The client is for one thread."""

    def render(self, template: str, values: Mapping[str, Any]) -> str:
        """Return a template's HTML, for a fragment. Values are escaped.

        Write times with the filter ``ago``: the page's script shows them in the person's time zone.
        """

    def preference(self, viewer: Viewer, key: str) -> str:
        """Return what ``set_preference`` stored for this person; empty if nothing."""

    def set_preference(self, viewer: Viewer, key: str, value: str) -> None:
        """Store a preference, at most 64 kB. Raises ``ValueError`` if it is larger."""

    def has_page(self, path: str) -> bool:
        """Return whether any plugin has a page with this route, such as ``/tanks``. Not before ``start``."""

    def marks(self, subjects: Collection[str], start: int, end: int) -> Sequence[Mark]:
        """Return what ``Pages.marks`` of all plugins return, oldest first. May block for seconds.

        A plugin that fails is logged and left out. Not before ``start``.
        """

    def is_watched(self) -> bool:
        """Return whether a page has been open in the last minute. Work for pages alone can rest otherwise."""


class Pages:
    """The pages of a connector; an entry point of the group ``tieline.pages`` names a subclass.

    The worker creates one object when it serves pages. ``title`` names it in messages.
    """

    title = ""
    menu_position = 100
    """Where its entries are in the menu: those with a smaller number come first."""

    def __init__(self, context: PageContext) -> None:
        self.context = context

    def routes(self) -> Sequence[Route]:
        """Return the pages and actions."""
        return ()

    def channels(self) -> Mapping[str, Channel]:
        """Return the live channels by name. A page subscribes with ``data-channel="NAME?argument=value"``."""
        return {}

    def alarms(self) -> Sequence[Alarm]:
        """Return what is abnormal now. Called every few seconds in a thread; must return within a second."""
        return ()

    def marks(self, subjects: Collection[str], start: int, end: int) -> Sequence[Mark]:
        """Return what happened to these subjects in a range of time, for charts.

        A subject is ``platform/path`` of a point, without escapes. Times are microseconds since 1970; a range
        includes its start and excludes its end. Called in a thread for each chart.
        """
        return ()

    def start(self) -> None:
        """Start background work, once. The worker's connectors start at the same time."""

    def stop(self) -> None:
        """End background work and release everything; the last call."""
