"""A cluster of several real Apache Kafka brokers on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tieline_lab.kafka import KafkaServer, Quorum
from tieline_lab.process import Server, free_port


class KafkaCluster(Server):
    """Nodes 1, 2, … that replicate every topic among them. Their data stay in ``work``.

    ``libs`` is the folder with the jars; ``None`` means the one of ``fetch_libs``. ``min_insync_replicas``
    is how many nodes must have a record before it counts as written. If fewer run, writes fail.
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
        """The addresses of all nodes, for clients."""
        return ",".join(server.bootstrap for server in self.nodes.values())

    def start(self) -> None:
        """Start all nodes and return when clients can use each of them."""
        _call_all(server.start for server in self.nodes.values())

    def stop(self) -> None:
        """Stop the nodes that run, in about 5 s.

        A node asks most of the others before it stops. If they have stopped already, it gets no answer and
        is killed.
        """
        _call_all(partial(server.stop, 8.0) for server in self.nodes.values())


def _call_all(calls: Iterable[Callable[[], None]]) -> None:
    """Make these calls at the same time, since a node is not ready before most others are."""
    with ThreadPoolExecutor() as pool:
        for future in [pool.submit(call) for call in calls]:
            future.result()
