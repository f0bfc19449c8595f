"""How full a spool is, for a source that yields to new records."""

from __future__ import annotations

import pytest

from tieline.api import SourceRecord
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.clock import Counters


def test_the_used_share_grows_with_the_spool_and_falls_with_what_was_acknowledged(tmp_path):
    spool = Spool(tmp_path / "s.db", Limits(100_000, drop_oldest=True, quarantine_bytes=0), Counters())
    assert spool.used_share() == 0.0
    spool.append([SourceRecord("t", "x" * 10_000)])
    one = spool.used_share()
    spool.append([SourceRecord("t", "x" * 10_000)])
    assert 0.1 < one < 0.2
    assert spool.used_share() == pytest.approx(2 * one, rel=0.01)
    spool.save({spool.id: "2"})
    assert spool.used_share() == 0.0
    spool.close()
