"""The buffer between the reading thread and poll: bounds, exact counts, waiting."""

from __future__ import annotations

import threading
import time

from tieline_connectors.volttron_bus.buffer import ReceiveBuffer, ReceivedMessage


def frames(*sizes):
    return [[b"x" * size] for size in sizes]


def test_messages_are_taken_in_order_with_their_times():
    buffer = ReceiveBuffer(10, 100)
    assert buffer.put([[b"a"], [b"b"]], 1) == 0
    assert buffer.put([[b"c"]], 2) == 0
    assert buffer.take(2, 0) == [ReceivedMessage([b"a"], 1), ReceivedMessage([b"b"], 1)]
    assert buffer.take(2, 0) == [ReceivedMessage([b"c"], 2)]
    assert buffer.take(2, 0) == []


def test_messages_beyond_the_count_limit_are_dropped_and_counted():
    buffer = ReceiveBuffer(3, 1000)
    assert buffer.put(frames(1, 1, 1, 1, 1), 0) == 2
    assert len(buffer.take(1, 0)) == 1
    assert buffer.put(frames(1, 1), 0) == 1
    assert len(buffer.take(10, 0)) == 3


def test_messages_beyond_the_size_limit_are_dropped_and_counted():
    buffer = ReceiveBuffer(100, 10)
    assert buffer.put(frames(6, 5, 4, 1), 0) == 2
    assert [len(received.frames[0]) for received in buffer.take(10, 0)] == [6, 4]
    assert buffer.put(frames(10, 11), 0) == 1


def test_a_waiting_take_is_woken_by_a_message():
    buffer = ReceiveBuffer(10, 100)
    threading.Timer(0.02, buffer.put, (frames(1), 0)).start()
    assert len(buffer.take(10, 30)) == 1


def test_a_closed_buffer_returns_its_messages_and_never_waits():
    buffer = ReceiveBuffer(10, 100)
    threading.Timer(0.02, buffer.close).start()
    assert buffer.take(10, 30) == []
    buffer.put(frames(1), 0)
    begin = time.monotonic()
    assert len(buffer.take(10, 30)) == 1
    assert buffer.take(10, 30) == []
    assert time.monotonic() - begin < 5
