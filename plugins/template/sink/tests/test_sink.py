"""The contract that every sink keeps, and what this one does beyond it."""

import json
import sqlite3
from contextlib import closing

import pytest
from tieline_acme.sink import AcmeSink

from tieline.testing.contract import SinkContract


class TestAcmeSink(SinkContract):
    connector = AcmeSink
    idempotent = True  # a record that comes again changes nothing; False needs not_idempotent_because = "…"

    @pytest.fixture
    def settings(self, tmp_path):
        """A working configuration."""
        return {"file": str(tmp_path / "out.db")}

    @pytest.fixture
    def written(self, settings):
        """What is safe outside, read by other means than the sink's."""

        def written():
            with closing(sqlite3.connect(settings["file"])) as database:
                rows = database.execute("SELECT value FROM records ORDER BY rowid").fetchall()
            return [json.loads(value) for (value,) in rows]

        return written

    @pytest.fixture
    def bad_value(self):
        """A value that can never be written."""
        return {"no JSON": object()}

    @pytest.fixture
    def outage(self, tmp_path):
        """A configuration whose external system cannot be reached."""
        return {"file": str(tmp_path / "no such folder" / "out.db")}

    @pytest.fixture
    def lock(self, settings):
        """Another program that writes to the file, and lets no one else."""
        with closing(sqlite3.connect(settings["file"], timeout=0, isolation_level=None)) as database:
            yield database

    @pytest.fixture
    def break_it(self, lock):
        """Make the external system unavailable, in the middle of a run."""
        return lambda: lock.execute("BEGIN EXCLUSIVE")

    @pytest.fixture
    def heal_it(self, lock):
        """Make it available again."""

        def heal_it():
            if lock.in_transaction:
                lock.execute("ROLLBACK")
            lock.execute("DROP TRIGGER IF EXISTS full")

        return heal_it

    @pytest.fixture
    def break_after(self, lock):
        """Let the external system take so many more rows, and be unavailable then."""

        def break_after(count):
            (rows,) = lock.execute("SELECT count(*) FROM records").fetchone()
            lock.execute(
                "CREATE TRIGGER full AFTER INSERT ON records "
                f"WHEN (SELECT count(*) FROM records) > {rows + count} "
                "BEGIN SELECT json('no JSON'); END"  # an error of SQLite itself, as that of a full disk
            )

        return break_after

    @pytest.fixture
    def worker_settings(self):
        """Settings of the worker that the kit runs and kills; remove it if a worker cannot reach yours."""
        return {}
