"""Where a run of the lab stores readings: MongoDB, or a SQLite file of the sink ``history``."""

from __future__ import annotations

import enum
import sqlite3
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pymongo import DESCENDING, MongoClient
from pymongo.errors import PyMongoError

from tieline_connectors.history.store import HistoryStore
from tieline_connectors.points.questions import PointName, Search, StoreUnavailableError
from tieline_lab import comparison, values_comparison
from tieline_lab.comparison import ExpectedReadings, Findings, Message, Verdict
from tieline_lab.values_comparison import StoredValue, ValueFindings, values_of

_SECONDS = 60.0
"""The time limit of a question to the history."""
_LATEST = 100
"""How many of a device's newest values are read for the table; a device of the lab has fewer points."""


class StoreKind(str, enum.Enum):
    """The stores that the lab runs with."""

    MONGO = "mongo"
    HISTORY = "history"


class Observed(NamedTuple):
    """What a store is compared with at the end of a run."""

    seen: Counter[Message]
    """The messages that the observer saw."""
    received: int
    """What the bus source has spooled since its start, which was before the observer's."""
    dropped: int
    """The number of messages that any connector dropped or quarantined."""
    expected: ExpectedReadings


class LabStore(ABC):
    """A store of readings. Every method but ``close`` raises ``StoreUnavailableError``. Not thread-safe."""

    name: str
    """What the lab calls it."""
    unit: str
    """What ``count`` counts."""

    @abstractmethod
    def count(self) -> int:
        """Return how much is stored, for a line of progress."""

    @abstractmethod
    def last_reading(self, device: str) -> Mapping[str, Any] | None:
        """Return ``time`` and ``points`` of a device's newest reading, or ``None``."""

    @abstractmethod
    def delete(self, message: Message) -> None:
        """Delete what is stored of a message, to see that it is noticed."""

    @abstractmethod
    def judge(self, observed: Observed) -> Verdict:
        """Compare what is stored with what was observed."""

    @abstractmethod
    def count_command_history(self) -> int | None:
        """Return the number of documents of the command history, or ``None`` if this store keeps none."""

    @abstractmethod
    def close(self) -> None:
        """Release all connections."""


class MongoLabStore(LabStore):
    """The collections of the lab's MongoDB sinks."""

    name = "MongoDB"
    unit = "documents"

    def __init__(self, uri: str) -> None:
        self._client = MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=5000)
        self._database = self._client["tieline"]

    def count(self) -> int:
        """Return the number of documents in ``cloudagent``."""
        with _report_mongo():
            return self._database["cloudagent"].estimated_document_count()

    def last_reading(self, device: str) -> Mapping[str, Any] | None:
        """Return the newest document of a device in ``readings``, or ``None``."""
        with _report_mongo():
            return self._database["readings"].find_one({"device": device}, sort=[("time", DESCENDING)])

    def delete(self, message: Message) -> None:
        """Delete a message's document in ``cloudagent``."""
        with _report_mongo():
            self._database["cloudagent"].delete_one(
                {"topic": message.topic, "headers.TimeStamp": message.time}
            )

    def judge(self, observed: Observed) -> Verdict:
        """Compare the documents of ``cloudagent`` with the messages."""
        with _report_mongo():
            documents = self._database["cloudagent"].find({}, {"topic": 1, "headers": 1, "message": 1})
            stored = Counter(Message.of(d["topic"], d["headers"], d["message"]) for d in documents)
            readings = self._database["readings"].count_documents({})
        return comparison.judge(
            Findings(observed.seen, stored, readings, observed.received, observed.dropped, observed.expected)
        )

    def count_command_history(self) -> int:
        """Return the number of documents in ``commands``."""
        with _report_mongo():
            return self._database["commands"].count_documents({})

    def close(self) -> None:
        """Close the client."""
        self._client.close()


class HistoryLabStore(LabStore):
    """The file of the sink ``history``, read through the same store as the pages and ``tieline query``."""

    name = "a history file"
    unit = "values"

    def __init__(self, path: Path, platform: str) -> None:
        self.path = path
        self._platform = platform
        self._store = HistoryStore(path, _SECONDS)

    def count(self) -> int:
        """Return the number of stored values."""
        try:
            with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as connection:
                ((number,),) = connection.execute("SELECT count(*) FROM reading").fetchall()
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"{self.path} cannot be read: {error}") from error
        return int(number)

    def last_reading(self, device: str) -> Mapping[str, Any] | None:
        """Return the newest values of a device that have one time, or ``None``."""
        found: Sequence[Mapping[str, Any]] = self._store.search(Search(device=device), _LATEST)
        if not found:
            return None
        newest = found[0]["time"]
        points = {value["point"]: value["value"] for value in found if value["time"] == newest}
        return {"time": values_comparison.to_datetime(newest), "points": points}

    def delete(self, message: Message) -> None:
        """Delete one value of a message."""
        value = next(iter(values_of(message)))
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            # at counts from the middle of the hour (tieline_connectors.history.database).
            hour = value.time // _HOUR
            connection.execute(
                "DELETE FROM reading WHERE hour = ? AND at = ? AND series ="
                " (SELECT id FROM series WHERE platform = ? AND device = ? AND point = ?)",
                (hour, value.time - hour * _HOUR - _HOUR // 2, self._platform, value.device, value.point),
            )

    def judge(self, observed: Observed) -> Verdict:
        """Compare each stored value with those of the messages."""
        names = [known.name for known in self._store.points()]
        stored = Counter(value for name in names for value in self._values(name))
        return values_comparison.judge(
            ValueFindings(observed.seen, stored, observed.received, observed.dropped, observed.expected)
        )

    def count_command_history(self) -> None:
        """Return ``None``: the sink ``history`` keeps readings alone."""
        return

    def close(self) -> None:
        """Close all connections."""
        self._store.close()

    def _values(self, name: PointName) -> Iterator[StoredValue]:
        for value in self._store.export(name, 0, 2**62):
            yield StoredValue.of(name.device, name.point, value.time, value.value)


_HOUR = 3600 * 1_000_000


@contextmanager
def _report_mongo() -> Iterator[None]:
    try:
        yield
    except PyMongoError as error:
        raise StoreUnavailableError(f"MongoDB does not answer: {error}") from error
