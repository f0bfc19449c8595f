"""The history sink keeps the contract."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import apsw
import pytest

from tieline.testing.contract import SinkContract
from tieline_connectors.history.model.intervals import join
from tieline_connectors.history.model.stored_values import from_stored
from tieline_connectors.history.sink import HistorySink
from tieline_connectors.history.writing.names import Names

pytestmark = pytest.mark.slow

SECOND = 1_000_000
START = 1_767_225_600 * SECOND


class TestHistorySink(SinkContract):
    connector = HistorySink
    soon = 5.0  # a locked file is waited for, 2 s
    test_one_value_under_two_ids_is_two_records = None  # type: ignore[assignment]  # one row per point and time

    @pytest.fixture
    def file(self, tmp_path):
        return tmp_path / "history" / "readings.db"

    @pytest.fixture
    def settings(self, file):
        return {"file": str(file), "retention.ms": "-1"}

    def value(self, number):
        return {
            "platform": "p",
            "topic": "devices/d/all",
            "device": "d",
            "kind": "ALL",
            "sender": "driver",
            "headers": {},
            "time": START + number * SECOND,
            "time_source": "TIMESTAMP",
            "received": START + number * SECOND + 5,
            "points": {"count": number},
            "metadata": {"count": {"units": "1", "type": None, "tz": None}},
        }

    @pytest.fixture
    def written(self, file):
        def written() -> list[Any]:
            if not file.exists():
                return []
            with closing(apsw.Connection(str(file))) as connection:
                rows: list[Any] = connection.execute("SELECT hour, at, value, delay FROM reading").fetchall()
            return [self._value_of(join(hour, at), *row) for hour, at, *row in rows]

        return written

    def _value_of(self, time, stored, delay):
        value = self.value((time - START) // SECOND)
        return {**value, "points": {"count": from_stored(stored)}, "received": time + delay}

    @pytest.fixture
    def bad_value(self):
        return {**self.value(0), "points": {"count": {1j}}}

    @pytest.fixture
    def outage(self, tmp_path):
        (tmp_path / "a file").touch()
        return {"file": str(tmp_path / "a file" / "readings.db")}

    @pytest.fixture
    def other_writer(self, file):
        connections: list[apsw.Connection] = []
        yield connections
        for connection in connections:
            connection.close()

    @pytest.fixture
    def break_it(self, file, other_writer):
        """Another program locks the file."""

        def break_it():
            file.parent.mkdir(exist_ok=True)
            other_writer.append(apsw.Connection(str(file)))
            other_writer[-1].execute("BEGIN IMMEDIATE")

        return break_it

    @pytest.fixture
    def full_disk(self):
        """A disk that becomes full in the middle of a batch."""
        with pytest.MonkeyPatch.context() as patch:
            yield patch

    @pytest.fixture
    def break_after(self, full_disk):
        def break_after(count):
            room = iter(range(count))

            def stored(names, *arguments, stored=Names.stored):
                if next(room, None) is None:
                    raise apsw.FullError("database or disk is full")
                stored(names, *arguments)

            full_disk.setattr(Names, "stored", stored)

        return break_after

    @pytest.fixture
    def heal_it(self, other_writer, full_disk):
        def heal_it():
            full_disk.undo()
            while other_writer:
                other_writer.pop().close()

        return heal_it

    @pytest.fixture
    def worker_settings(self):
        return {}
