"""The stores of readings that the sinks of this worker fill."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import time_ns

from tieline.api import TielineError
from tieline.api.pages import RunningConnector
from tieline_connectors.history.config import HistorySinkConfig
from tieline_connectors.history.store import HistoryStore
from tieline_connectors.mongo.config import MongoSinkConfig
from tieline_connectors.mongo.query.store import MongoStore
from tieline_connectors.points.questions import (
    KnownPoint,
    PointName,
    ReadingStore,
    StoreUnavailableError,
    Value,
)

log = logging.getLogger(__name__)

_DAY = 86_400_000_000  # µs

Opener = Callable[[RunningConnector, Path], Iterable[ReadingStore]]


def _history(connector: RunningConnector, data_dir: Path) -> Iterator[ReadingStore]:
    yield HistoryStore(HistorySinkConfig.parse(connector.settings).path(data_dir))


def _mongo(connector: RunningConnector, data_dir: Path) -> Iterator[ReadingStore]:
    config = MongoSinkConfig.parse(connector.settings)
    topics = connector.topics or (("",) if config.collection else ())
    for database, collection in dict.fromkeys(config.destination(topic)[:2] for topic in topics):
        yield MongoStore(config.connection_uri.get_secret_value(), database, collection)


OPENERS: Mapping[str, Opener] = {"history": _history, "mongo": _mongo}
"""How to open the stores of a sink, by its plugin."""


class Stores:
    """All stores of a worker, by a short key. Safe for many threads."""

    def __init__(self, stores: Mapping[str, ReadingStore]) -> None:
        self._stores = stores
        self._newest: dict[PointName, tuple[int, str]] = {}
        self.unavailable: dict[str, str] = {}
        """Why a store did not answer, by key; until it answers which points it has."""

    @classmethod
    def open(cls, connectors: Iterable[RunningConnector], data_dir: Path) -> Stores:
        """Open the stores of these connectors. One that cannot be opened is logged and left out."""
        stores: dict[str, ReadingStore] = {}
        names = set()
        for connector in connectors:
            if connector.kind != "sink" or connector.plugin not in OPENERS:
                continue
            try:
                for store in OPENERS[connector.plugin](connector, data_dir):
                    if store.name in names:  # two sinks write one collection
                        store.close()
                        continue
                    names.add(store.name)
                    stores[_free_key(connector.name, stores)] = store
            except (ValueError, OSError, TielineError) as error:
                log.error("pages cannot read what %s stores: %s", connector.name, error)
        return cls(stores)

    @property
    def all(self) -> Mapping[str, ReadingStore]:
        """The stores by key, in the order of the connectors."""
        return self._stores

    def points(self) -> Sequence[KnownPoint]:
        """Return the points of all stores that answer; of a point in several, the newest."""
        newest: dict[PointName, tuple[KnownPoint, str]] = {}
        for key, store in self._stores.items():
            try:
                for known in store.points():
                    found = newest.get(known.name)
                    if found is None or known.last_time > found[0].last_time:
                        newest[known.name] = known, key
            except StoreUnavailableError as error:
                self.unavailable[key] = str(error)
                continue
            self.unavailable.pop(key, None)
        self._newest = {name: (known.last_time, key) for name, (known, key) in newest.items()}
        return [known for known, _ in newest.values()]

    def of_point(self, name: PointName) -> ReadingStore | None:
        """Return the store with the newest value of a point, else the first one."""
        key = self._newest.get(name, (0, ""))[1]
        return self._stores.get(key) or next(iter(self._stores.values()), None)

    def newest_value(self, name: PointName, time: int) -> Value | None:
        """Return a point's newest value; ``None`` if its store has none, or does not answer.

        ``time``: the ``last_time`` of the point in the list of all points.
        """
        end = min((time // _DAY + 1) * _DAY, max(time_ns() // 1000, time) + 1)
        key = self._newest.get(name, (0, ""))[1]
        store = self._stores.get(key)
        try:
            return next(iter(store.values(name, time, end, 1)), None) if store else None
        except StoreUnavailableError as error:
            self.unavailable[key] = str(error)
            return None

    def close(self) -> None:
        """Close every store."""
        for store in self._stores.values():
            with suppress(StoreUnavailableError):
                store.close()


def _free_key(name: str, taken: Mapping[str, ReadingStore]) -> str:
    number, key = 1, name
    while key in taken:
        number += 1
        key = f"{name}-{number}"
    return key
