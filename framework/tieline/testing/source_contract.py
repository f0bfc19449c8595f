"""The promises of a source, as tests."""

from __future__ import annotations

from tieline.testing.killed_worker import SourceInAKilledWorker
from tieline.testing.source_reading import SourceReading
from tieline.testing.source_stopping import SourceStopping


class SourceContract(SourceReading, SourceStopping, SourceInAKilledWorker):
    """What ``tieline.api.SourceTask`` promises.

    Give ``connector`` and the fixtures ``settings`` and ``feed``. Further fixtures enable further promises:
    ``outage``, ``break_it`` with ``heal_it``, ``worker_settings``.
    """
