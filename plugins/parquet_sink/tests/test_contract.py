"""The contract of a sink; and sinks that break it fail it."""

import pytest
from conftest import rows
from tieline_parquet.sink import ParquetSink, ParquetSinkTask

from tieline.api import TopicPartition
from tieline.testing.contract import SinkContract


class TestParquetSink(SinkContract):
    connector = ParquetSink

    @pytest.fixture
    def settings(self, tmp_path):
        return {"store.url": str(tmp_path / "lake"), "flush.size": "1"}

    @pytest.fixture
    def worker_settings(self):
        return {}

    @pytest.fixture
    def break_it(self, tmp_path):
        lake = tmp_path / "lake"

        def break_it():
            if lake.exists():
                lake.rename(tmp_path / "kept")
            lake.write_text("")

        return break_it

    @pytest.fixture
    def heal_it(self, tmp_path):
        lake = tmp_path / "lake"

        def heal_it():
            lake.unlink()
            if (tmp_path / "kept").exists():
                (tmp_path / "kept").rename(lake)

        return heal_it

    @pytest.fixture
    def written(self, tmp_path):
        return lambda: [row["value"] for row in rows(tmp_path / "lake")]

    @pytest.fixture
    def bad_value(self):
        return {"no JSON": {1, 2}, "key": {(1, 2): 3}}

    @pytest.fixture
    def outage(self, tmp_path):
        (tmp_path / "a file").write_text("")
        return {"store.url": str(tmp_path / "a file" / "lake")}

    def test_a_record_at_another_offset_is_the_same_record(self, not_tested):
        not_tested("a file is named by its first offset: what a source sent twice is there twice")

    def test_what_is_open_is_not_called_safe(self, settings, written):
        """``flush.size`` 1 above makes every record safe; here two are open when five were put."""
        with self._started({**settings, "flush.size": "3"}) as task:
            self._put(task, self._batch(0, 0, 5))
            at = TopicPartition("consumed", 0)
            assert task.pre_commit({at: 5}) == {at: 3}
            assert len(written()) == 3


class CommitsTooEarly(ParquetSinkTask):
    """Says that what is open is safe."""

    def pre_commit(self, offsets):
        self.flush(offsets)
        return offsets


class WritesTooLate(ParquetSinkTask):
    """Never writes what has ended."""

    def _write_ended(self):
        pass


@pytest.mark.parametrize(
    ("broken", "flush_size", "test"),
    [
        (CommitsTooEarly, "3", "test_what_pre_commit_returns_is_written"),
        (WritesTooLate, "1", "test_what_was_flushed_is_written_once"),
    ],
)
def test_a_broken_sink_fails_the_contract(tmp_path, broken, flush_size, test):
    class Broken(ParquetSink):
        task_type = broken

    contract = TestParquetSink()
    contract.connector = Broken
    settings = {"store.url": str(tmp_path / "lake"), "flush.size": flush_size}
    with pytest.raises(AssertionError):
        getattr(contract, test)(settings, lambda: [row["value"] for row in rows(tmp_path / "lake")])
