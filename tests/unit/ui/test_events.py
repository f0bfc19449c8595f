"""The live stream: what it sends, and that neither a slow viewer nor a fault holds up the others."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tieline.api.pages import Update
from tieline.ui import events
from tieline.ui.events import EventHub, Subscription


class Counter:
    """A channel with a number that grows; counts how often it is read."""

    def __init__(self):
        self.value = 1
        self.reads = []

    def __call__(self, arguments, since):
        self.reads.append(since)
        return None if self.value <= since else Update(self.value, {"n": str(self.value)})


def subscription(text):
    return Subscription.parse(text, "ann", "UTC")


def contents(chunks):
    lines = b"".join(chunks).decode().split("\n\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


@pytest.fixture(autouse=True)
def _short_ticks(monkeypatch):
    monkeypatch.setattr(events, "SHORTEST_TICK", 0.01)


async def take(stream, number):
    return [await asyncio.wait_for(anext(stream), 10) for _ in range(number)]


def test_a_stream_begins_with_the_start_of_the_worker_and_all_there_is():
    async def run():
        hub = EventHub({"c": Counter()}, "boot-1")
        stream = hub.stream([subscription("c?x=1")])
        hello, first = await take(stream, 2)
        await stream.aclose()
        return hello, first

    hello, first = asyncio.run(run())
    assert hello == b'retry: 1000\nevent: hello\ndata: "boot-1"\n\n'
    assert contents([first]) == [{"channel": "c?x=1", "fragments": {"n": "1"}, "data": None}]


def test_only_what_has_changed_is_sent_and_a_slow_viewer_gets_the_last_state():
    async def run():
        counter = Counter()
        hub = EventHub({"c": counter}, "b")
        stream = hub.stream([subscription("c")])
        await take(stream, 2)
        for value in range(2, 50):  # the viewer reads nothing meanwhile
            counter.value = value
            await asyncio.sleep(0.001)
        (late,) = await take(stream, 1)
        await stream.aclose()
        return late

    assert [each["fragments"]["n"] for each in contents([asyncio.run(run())])] == ["49"]


def test_viewers_of_the_same_thing_share_what_was_rendered():
    async def run():
        counter = Counter()
        hub = EventHub({"c": counter}, "b")
        streams = [hub.stream([subscription("c")]) for _ in range(50)]
        await asyncio.gather(*(take(stream, 2) for stream in streams))
        reads_before = len(counter.reads)
        waiting = [asyncio.ensure_future(take(stream, 1)) for stream in streams]
        await asyncio.sleep(0.05)  # all wait for the next tick
        counter.value = 2
        await asyncio.gather(*waiting)
        for stream in streams:
            await stream.aclose()
        return [since for since in counter.reads[reads_before:] if since == 1], hub.streams

    reads, left = asyncio.run(run())
    assert len(reads) < 30  # one for each tick, not one for each viewer
    assert left == 0


def test_a_channel_that_fails_is_logged_once_and_the_others_continue(caplog):
    def broken(arguments, since):
        raise ValueError("broken")

    async def run():
        counter = Counter()
        hub = EventHub({"bad": broken, "c": counter}, "b")
        stream = hub.stream([subscription("bad"), subscription("c"), subscription("unknown")])
        chunks = await take(stream, 2)
        counter.value = 2
        chunks += await take(stream, 1)
        await stream.aclose()
        return chunks

    assert [each["fragments"]["n"] for each in contents(asyncio.run(run()))] == ["1", "2"]
    assert caplog.text.count("the live channel bad failed") == 1


def test_a_page_knows_that_the_stream_lives_although_nothing_changes(monkeypatch):
    monkeypatch.setattr(events, "_HEARTBEAT", 0.05)

    async def run():
        hub = EventHub({"c": Counter()}, "b")
        stream = hub.stream([subscription("c")])
        chunks = await take(stream, 3)
        await stream.aclose()
        return chunks

    assert asyncio.run(run())[-1] == b": alive\n\n"


def test_closing_ends_every_stream():
    async def run():
        hub = EventHub({"c": Counter()}, "b")
        stream = hub.stream([subscription("c")])
        await take(stream, 2)
        hub.close()
        with pytest.raises(StopAsyncIteration):
            await take(stream, 1)
        return hub.streams

    assert asyncio.run(run()) == 0


def test_pages_are_watched_while_a_stream_is_open_and_a_minute_longer():
    now = [100.0]

    async def run():
        hub = EventHub({"c": Counter()}, "b", lambda: now[0])
        seen = [hub.is_watched()]
        stream = hub.stream([subscription("c")])
        await take(stream, 1)
        seen.append(hub.is_watched())
        await stream.aclose()
        now[0] += 59
        seen.append(hub.is_watched())
        now[0] += 2
        return [*seen, hub.is_watched()]

    assert asyncio.run(run()) == [False, True, True, False]


def test_more_work_makes_longer_ticks_so_that_the_pipeline_does_not_notice_it():
    assert [events.pause_after(work) for work in (0.0, 0.0005, 0.01, 1.0)] == [0.01, 0.1, 2.0, 5.0]


def test_the_names_of_the_person_and_the_zone_come_from_the_server():
    parsed = Subscription.parse("c?viewer=mallory&time_zone=X&a=1", "ann", "UTC")
    assert dict(parsed.arguments) == {"viewer": "ann", "time_zone": "UTC", "a": "1"}


def test_a_value_that_is_not_json_ends_no_other_channel(caplog):
    async def run():
        counter = Counter()
        hub = EventHub({"bad": lambda *_: Update(1, data=float("nan")), "c": counter}, "b")
        stream = hub.stream([subscription("bad"), subscription("c")])
        chunks = await take(stream, 2)
        await stream.aclose()
        return chunks

    assert [each["channel"] for each in contents(asyncio.run(run()))] == ["c"]
    assert "the live channel bad failed" in caplog.text


def test_a_stream_ends_soon_after_its_person_has_signed_out(monkeypatch):
    monkeypatch.setattr(events, "_HEARTBEAT", 0.02)
    signed_in = [True]

    async def run():
        hub = EventHub({"c": Counter()}, "b")
        stream = hub.stream([subscription("c")], lambda: signed_in[0])
        await take(stream, 3)
        signed_in[0] = False
        with pytest.raises(StopAsyncIteration):
            await take(stream, 2)
        return hub.streams

    assert asyncio.run(run()) == 0


@pytest.mark.slow
def test_expensive_channels_are_read_in_turn_and_leave_the_server_free(monkeypatch):
    monkeypatch.setattr(events, "_LONGEST_WORK", 0.01)
    reads = []

    def expensive(arguments, since):
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        reads.append(arguments["n"])
        return None

    async def run():
        hub = EventHub({"slow": expensive, "c": Counter()}, "b")
        greedy = hub.stream([subscription(f"slow?n={n}") for n in range(20)])
        await take(greedy, 1)
        waiting = asyncio.ensure_future(take(greedy, 1))
        while not reads:
            await asyncio.sleep(0.001)
        modest = hub.stream([subscription("c")])
        answers = await take(modest, 2)
        read_until_then = len(reads)
        waiting.cancel()
        return read_until_then, answers

    read_until_then, answers = asyncio.run(run())
    assert read_until_then < 5
    assert len(contents(answers)) == 1
