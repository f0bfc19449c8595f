"""The promises of a sink, as tests."""

from __future__ import annotations

from tieline.testing.killed_worker import SinkInAKilledWorker
from tieline.testing.sink_failures import SinkFailures
from tieline.testing.sink_identity import SinkIdentity
from tieline.testing.sink_partitions import SinkPartitions
from tieline.testing.sink_writing import SinkWriting


class SinkContract(SinkWriting, SinkPartitions, SinkIdentity, SinkFailures, SinkInAKilledWorker):
    """What ``tieline.api.SinkTask`` promises.

    Give ``connector`` and the fixtures ``settings`` and ``written``; override ``value`` if the sink does not
    take any text. Further fixtures enable further promises: ``bad_value``, ``outage``, ``break_it`` with
    ``heal_it``, ``break_after``, ``worker_settings``.
    """
