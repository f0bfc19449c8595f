"""Live updates: one stream of server-sent events for each open page.

All channels are read at common ticks, at most four a second, and equal subscriptions share what was rendered.
A viewer who reads slowly misses ticks, and then gets what has changed since. Nothing is queued.

A tick is longer if the work of the last one took long: the streams get about a two-hundredth of one
processor, so that the pipeline does not notice them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl

from tieline.api.pages import Channel

log = logging.getLogger(__name__)

SHORTEST_TICK = 0.25  # seconds
_LONGEST_TICK = 5.0
_SHARE = 200
_HEARTBEAT = 10.0
_WATCHED = 60.0
_LONGEST_WORK = _LONGEST_TICK / _SHARE  # seconds of reading channels in one tick
MAX_SUBSCRIPTIONS = 20
MAX_STREAMS = 200
"""So many pages may be open: each keeps a connection, and others must still find one."""


class Subscription(NamedTuple):
    """A channel's name and the arguments for it."""

    text: str
    """The subscription as the page wrote it."""
    channel: str
    arguments: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str, viewer: str, time_zone: str) -> Subscription:
        """Return ``NAME?argument=value&…``; the server adds ``viewer`` and ``time_zone``."""
        channel, _, query = text.partition("?")
        given = dict(parse_qsl(query, keep_blank_values=True)) | {"viewer": viewer, "time_zone": time_zone}
        return cls(text, channel, tuple(sorted(given.items())))


class EventHub:
    """The streams of one server. Only its event loop may use it, but for ``is_watched``."""

    def __init__(
        self, channels: Mapping[str, Channel], boot: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._channels = channels
        self._boot = boot
        self._clock = clock
        self._tick = asyncio.Condition()
        self._ticker: asyncio.Task[None] | None = None
        self._streams = 0
        self._last_watched = float("-inf")
        self._cache: dict[tuple[Subscription, int], tuple[int, bytes]] = {}
        self._turn = asyncio.Lock()
        self._work = 0.0
        self._failed: set[str] = set()
        self._is_closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = asyncio.Event()

    @property
    def streams(self) -> int:
        """The number of open pages."""
        return self._streams

    def is_watched(self) -> bool:
        """Return whether a page has been open in the last minute. Any thread may call it."""
        return self._streams > 0 or self._clock() - self._last_watched < _WATCHED

    def close(self) -> None:
        """End every stream at once, however long the tick is. Any thread may call it."""
        self._is_closing = True
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop, and with it every stream, has ended already
                loop.call_soon_threadsafe(self._closed.set)

    async def stream(
        self, subscriptions: Sequence[Subscription], is_signed_in: Callable[[], bool] = lambda: True
    ) -> AsyncGenerator[bytes, None]:
        """Yield events until the client leaves or has signed out."""
        versions = dict.fromkeys(subscriptions, 0)
        self._streams += 1
        if self._ticker is None:
            self._loop = asyncio.get_running_loop()
            self._ticker = self._loop.create_task(self._run())
        try:
            yield f"retry: 1000\nevent: hello\ndata: {json.dumps(self._boot)}\n\n".encode()
            last = asked = self._clock()
            while not self._is_closing:
                events = b"".join([await self._event(each, versions) for each in subscriptions])
                now = self._clock()
                if now - asked >= _HEARTBEAT:
                    asked = now
                    if not is_signed_in():
                        return
                if events or now - last >= _HEARTBEAT:
                    last = now
                    yield events or b": alive\n\n"
                await self._wait_for_tick()
        finally:
            self._streams -= 1
            self._last_watched = self._clock()
            if not self._streams and self._ticker is not None:
                self._ticker.cancel()
                self._ticker = None

    async def _event(self, subscription: Subscription, versions: dict[Subscription, int]) -> bytes:
        key = subscription, versions[subscription]
        if key not in self._cache:
            async with self._turn:  # in the order of requests, so that all get their turn
                while self._work >= _LONGEST_WORK and not self._is_closing:
                    await self._wait_for_tick()
                if key not in self._cache:
                    before = time.thread_time()
                    self._cache[key] = self._read(*key)
                    self._work += time.thread_time() - before
        versions[subscription], event = self._cache[key]
        return event

    async def _wait_for_tick(self) -> None:
        async with self._tick:
            if not self._is_closing:  # else the last tick may have been
                await self._tick.wait()

    def _read(self, subscription: Subscription, since: int) -> tuple[int, bytes]:
        """Return a channel's version and its event, empty without news. A fault does not end the others."""
        if subscription.channel not in self._channels:
            return since, b""
        try:
            update = self._channels[subscription.channel](dict(subscription.arguments), since)
            if update is None:
                return since, b""
            content = {"channel": subscription.text, "fragments": update.fragments, "data": update.data}
            text = json.dumps(content, default=str, allow_nan=False)
            return update.version, f"data: {text}\n\n".encode()
        except Exception:
            if subscription.channel not in self._failed:  # once, not four times a second
                self._failed.add(subscription.channel)
                log.exception("the live channel %s failed", subscription.channel)
            return since, b""

    async def _run(self) -> None:
        pause, before = SHORTEST_TICK, time.thread_time()
        while not self._closed.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._closed.wait(), pause)
            self._cache.clear()
            self._work = 0.0
            async with self._tick:
                self._tick.notify_all()
            now = time.thread_time()
            pause, before = pause_after(now - before), now


def pause_after(work: float) -> float:
    """Return the seconds until the next tick, after so many seconds of work for the last one."""
    return min(_LONGEST_TICK, max(SHORTEST_TICK, work * _SHARE))
