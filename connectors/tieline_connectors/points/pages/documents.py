"""The stored documents, newest first: each question to a store has an address of its own."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from tieline.api.pages import Page, PageError, PageRequest
from tieline_connectors.points.pages.chart_view import ViewError, parse_time_in
from tieline_connectors.points.pages.display import shortened, value_text
from tieline_connectors.points.questions import ReadingStore, Search, StoreUnavailableError
from tieline_connectors.points.stores import Stores

_PAGE = 50
_LONGEST = 20_000
_FIELDS = ("store", "topic", "pattern", "device", "history", "from", "to")
_HISTORIES = ("from-cloud", "to-cloud")
_MAX_SKIP = 5000
_SHOWN = 4


class DocumentsPage:
    """Shows what stores hold. Safe for many threads."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def show(self, request: PageRequest) -> Page:
        """Show what the address describes: ``?topic=…``, ``?pattern=…``, ``?history=…``, ``&before=…``."""
        query = request.query
        given = {name: query[name] for name in _FIELDS if query.get(name)}
        key, store = self._store(query.get("store", ""), given.get("history"))
        problem = ""
        documents: list[dict[str, Any]] = []
        skip = _number(query.get("skip", "0"), _MAX_SKIP)
        try:
            search = _search(given, ZoneInfo(request.time_zone))
            before = query.get("before", "")
            found = store.search(search, _PAGE + 1 + skip, int(before) if before.isdecimal() else None)
            documents = list(found)[skip:]
        except (ViewError, ValueError, StoreUnavailableError) as error:
            problem = str(error)
        shown = documents[:_PAGE]
        older = _older(shown, query, skip) if len(documents) > _PAGE else None
        values = {
            "stores": [(name, each.name) for name, each in self._stores.all.items()],
            "store_key": key,
            "query": dict.fromkeys(_FIELDS, "") | given,
            "rows": [_row(document, given) for document in shown],
            "problem": problem,
            "older": _address(given | older) if older else "",
            "newest": _address(given),
            "is_newest": not query.get("before"),
            "now_ms": time.time() * 1000,
        }
        return Page("documents.html", "Documents", values, 400 if problem and not shown else 200)

    def _store(self, key: str, history: str | None) -> tuple[str, ReadingStore]:
        stores = self._stores.all
        if not stores:
            raise PageError(404, "No sink of this worker stores documents. Add a sink history or mongo")
        if key and key not in stores:
            raise PageError(
                404, f"There is no store {shortened(key, 100)}. Choose one of {', '.join(stores)}"
            )
        chosen = key or self._with_history(history) or next(iter(stores))
        return chosen, stores[chosen]

    def _with_history(self, history: str | None) -> str:
        """Return the first store that has a command history; empty if none is asked for, or none has it."""
        if history not in _HISTORIES:
            return ""
        for key, store in self._stores.all.items():
            with suppress(StoreUnavailableError):
                if store.search(Search(history=history), 1):
                    return key
        return ""


def _search(given: Mapping[str, str], zone: dt.tzinfo) -> Search:
    now = dt.datetime.now(dt.timezone.utc)
    search = Search(
        given.get("topic"),
        given.get("pattern"),
        given.get("device"),
        parse_time_in(given["from"], zone, now) if "from" in given else None,
        parse_time_in(given["to"], zone, now) if "to" in given else None,
        given.get("history"),
    )
    if search.history not in (None, *_HISTORIES):
        raise ViewError(f"history must be {' or '.join(_HISTORIES)}")
    if problem := search.problem():
        raise ViewError(problem)
    return search


def _older(shown: Sequence[Mapping[str, Any]], query: Mapping[str, str], skip: int) -> dict[str, str] | None:
    """Return what leads to the next page: the time of the oldest document, and how many of it were shown.

    Many documents have the same time, so a page may end among them.
    """
    oldest = shown[-1].get("time")
    if not isinstance(oldest, int):
        return None
    same = sum(1 for _ in takewhile(lambda document: document.get("time") == oldest, reversed(shown)))
    if same == len(shown) and query.get("before") == str(oldest + 1):
        same += skip
    return {"before": str(oldest + 1), "skip": str(same)}


def _row(document: Mapping[str, Any], given: dict[str, str]) -> Mapping[str, Any]:
    moment, topic = document.get("time"), str(document.get("topic", ""))
    return {
        "time_ms": moment / 1000 if isinstance(moment, int) else None,
        "topic": shortened(topic, 200),
        "of_topic": _address(given | {"topic": topic}) if topic and len(topic) < 1000 else "",
        "summary": _summary(document),
        "json": shortened(json.dumps(document, indent=1, ensure_ascii=False, default=str), _LONGEST),
    }


def _summary(document: Mapping[str, Any]) -> str:
    points = document.get("points")
    if isinstance(points, Mapping):
        parts = [
            f"{shortened(str(name), 40)} = {value_text(value)}"
            for name, value in list(points.items())[:_SHOWN]
        ]
        more = len(points) - len(parts)
        return ", ".join(parts) + (f" and {more} more" if more > 0 else "")
    if "point" in document and "value" in document:
        units = f" {document['units']}" if document.get("units") else ""
        return shortened(f"{document['point']} = {value_text(document['value'])}{units}", 200)
    rest = {name: value for name, value in document.items() if name not in ("time", "topic", "_id")}
    return shortened(json.dumps(rest, ensure_ascii=False, default=str), 200)


def _number(text: str, largest: int) -> int:
    return min(int(text), largest) if text.isdecimal() and len(text) < 10 else 0


def _address(query: Mapping[str, str]) -> str:
    return f"/documents?{urlencode(query, errors='replace')}"
