"""Several real Apache Kafka brokers on this machine: one cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from typing_extensions import Self

from tieline_lab.kafka import KafkaServer, Quorum
from tieline_lab.process import free_port


class KafkaCluster:
    """Nodes 1, 2, … that replicate every topic among them; also as a context. Their data stay in ``work``.

    ``libs``: the jars; none: those of the cache. ``min_insync_replicas``: how many nodes must have a
    record before it counts as written; with fewer running, Kafka is unavailable to those that write.
    """

    def __init__(
        self, work: Path, libs: Path | None = None, *, size: int = 3, min_insync_replicas: int = 2
    ) -> None:
        controllers = {node: free_port() for node in range(1, size + 1)}
        quorum = Quorum(controllers, min_insync_replicas, heap="256m")
        self.nodes = {
            node: KafkaServer(work / str(node), libs, node=node, quorum=quorum) for node in controllers
        }

    @property
    def bootstrap(self) -> str:
        """Where clients find it, whichever nodes run."""
        return ",".join(server.bootstrap for server in self.nodes.values())

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all nodes and return when clients can use each."""
        _together(server.start for server in self.nodes.values())

    def stop(self) -> None:
        """Stop the nodes that run: about 5 s, in good order where they can.

        A node asks most of the others for leave to go; it gets no answer where they were quicker.
        """
        _together(partial(server.stop, 8.0) for server in self.nodes.values())


def _together(calls: Iterable[Callable[[], None]]) -> None:
    """At the same time: a node is not up before most others are."""
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()
