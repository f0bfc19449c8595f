"""Calls a platform's historian, over a connection of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tieline_connectors.volttron_bus.backfill.history import (
    InvalidHistoryError,
    Page,
    parse_metadata,
    parse_page,
    points_by_device,
    to_historian_time,
)
from tieline_connectors.volttron_bus.vip.client import (
    InvalidAnswerError,
    PeerUnreachableError,
    RpcError,
    VipClient,
    VipError,
    connect_client,
)
from tieline_connectors.volttron_bus.vip.reconnect import ReconnectState

_TIMEOUT = 30.0
"""Seconds for one answer. A historian of an old platform computes a page on a slow disk."""


class HistorianUnavailableError(Exception):
    """The platform or its historian cannot be reached, or refuses all queries."""


class HistorianRefusedError(Exception):
    """The historian answered a query with an error."""


class Historian:
    """The history of one platform; used by one thread. It connects when needed, and again after a loss.

    An answer never stands before messages of the bus, which arrive over the source's own connection.
    ``identity``: the historian's. If ``stopping`` returns true, a call is abandoned. All methods raise
    ``HistorianUnavailableError``, ``HistorianRefusedError`` and ``InvalidHistoryError``.
    """

    def __init__(
        self, reconnect: ReconnectState, identity: str, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self.identity = identity
        self._stopping = stopping
        self._reconnect = reconnect
        self._client: VipClient | None = None

    def points(self, devices: Iterable[str]) -> dict[str, dict[str, str]]:
        """Return for each of these devices its topics in the historian, each with its point."""
        try:
            topics = self._call("get_topic_list")
        except HistorianRefusedError as error:
            raise HistorianUnavailableError(f"it refuses to list its topics: {error}") from error
        return points_by_device(topics, devices)

    def metadata(self, points: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Return the metadata of each of these points that has some."""
        return parse_metadata(self._call("get_topics_metadata", list(points)), points)

    def page(self, points: Mapping[str, str], start: int, end: int, count: int) -> Page:
        """Return the first part of what these points have from ``start`` to before ``end`` (µs).

        ``count``: the most rows of one topic.
        """
        answer = self._call(
            "query",
            topic=list(points),
            start=to_historian_time(start),
            end=to_historian_time(end),
            count=count,
            order="FIRST_TO_LAST",
        )
        return parse_page(answer, points, start, end, count)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._client is None:
                self._reconnect.load()
                self._client = connect_client(self._reconnect, self._stopping)
            return self._client.call(self.identity, method, *args, timeout=_TIMEOUT, **kwargs)
        except RpcError as error:
            raise HistorianRefusedError(error.reason) from error
        except InvalidAnswerError as error:
            raise InvalidHistoryError(str(error)) from error
        except PeerUnreachableError as error:
            raise HistorianUnavailableError(
                f"no agent is connected as {self.identity}: start the historian, or check backfill.historian"
            ) from error
        except VipError as error:
            self.close()
            raise HistorianUnavailableError(str(error)) from error
        except ValueError as error:  # the key files
            raise HistorianUnavailableError(str(error)) from error
