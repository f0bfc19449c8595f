"""The load generator: a VOLTTRON router in a separate process that replays messages from a file.

``Generator`` runs `python -m bench.replay FILE RATE TIMES`. The process speaks VIP to one subscriber, as
``tieline_connectors.volttron_bus.testing.fake_router`` does. It sends no more than allowed: each line of its
standard input is the number of messages that may have been sent by now, and ``end`` ends the sending. The
number of messages under way is therefore bounded, and a rate that it reaches is sustained. It never drops a
message; it waits and reports for how long.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

import zmq
from typing_extensions import Self

from bench.stand import ROOT
from tieline_connectors.volttron_bus.vip.frames import PROTOCOL

_FRAMES = [b"", PROTOCOL, b"", b"", b"pubsub", b"publish"]
_QUEUE = 10_000  # messages in libzmq's queue, in front of the kernel's buffers
_POLL_EVERY = 256  # messages between two polls for the subscriber's requests


class Sent(NamedTuple):
    """The report of the generator: how many messages it sent in how many seconds, and for how long it waited.

    It waited ``held_s`` for permission and ``full_s`` for its full queue to the subscriber. ``behind_s`` is
    the longest delay behind its rate.
    """

    messages: int
    seconds: float
    held_s: float
    full_s: float
    behind_s: float

    @property
    def is_the_limit(self) -> bool:
        """Whether it hardly waited, so that the generator itself limited the rate."""
        return self.held_s + self.full_s < 0.1 * self.seconds


class Generator:
    """The generator's process, which ends with the context.

    ``rate`` is in messages per second; 0 means as fast as possible.
    """

    def __init__(self, file: Path, rate: float = 0) -> None:
        self._times = file.with_suffix(".times")
        command = [sys.executable, "-m", "bench.replay", str(file), str(rate), str(self._times)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.address = self._read_line().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # it ends when its standard input ends
        if self._process.returncode and error is None:
            raise RuntimeError(f"the load generator ended with status {self._process.returncode}")

    def allow(self, messages: int) -> None:
        """Allow it to have sent this many messages in all."""
        self._write_line(str(messages))

    def finish(self) -> Sent:
        """Let it send no more, and return its report. It continues to answer as a router."""
        self._write_line("end")
        return Sent(*json.loads(self._read_line()))

    def times(self) -> list[float]:
        """Return when each message was handed to libzmq (monotonic; all processes share this clock)."""
        times = array("d")
        times.frombytes(self._times.read_bytes())
        return times.tolist()

    def feed(self, count_arrived: Callable[[], int], window: int, seconds: float) -> list[tuple[float, int]]:
        """Let it send for ``seconds`` after the first arrival, at most ``window`` messages ahead.

        ``count_arrived`` returns how many messages have arrived. Return the moments at which it returned
        more than before, each with that number.
        """
        arrived = [(0.0, 0)]
        end = None
        while end is None or time.monotonic() < end:
            count, now = count_arrived(), time.monotonic()
            if count > arrived[-1][1]:
                arrived.append((now, count))
                end = end or now + seconds
            self.allow(count + window)
            time.sleep(0.002)
        return arrived[1:]

    def _write_line(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError("the load generator ended unexpectedly: its error is above")
        return line


def write_messages(file: Path, messages: Iterable[list[bytes]]) -> Path:
    """Write publications' frames for the generator to replay, one per line: topic, space, body."""
    with file.open("wb") as out:
        out.writelines(b"%b %b\n" % (frames[6], frames[7]) for frames in messages)
    return file


class _Permissions(threading.Thread):
    """Reads from standard input how many messages may be sent, and when to end."""

    def __init__(self, source: IO[str]) -> None:
        super().__init__(daemon=True)
        self.allowed = 0
        self.end = False
        self.input_closed = threading.Event()
        self._source = source

    def run(self) -> None:
        for line in self._source:
            if line.strip() == "end":
                self.end = True
            else:
                self.allowed = int(line)
        self.end = True
        self.input_closed.set()


class _Router:
    """The parts of a router that one subscriber needs."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.subscriber: bytes | None = None
        self._socket = socket

    def answer(self, milliseconds: int) -> None:
        """Answer the requests that have arrived, or that arrive within this time."""
        while self._socket.poll(milliseconds):
            milliseconds = 0
            sender, peer, protocol, user, ident, subsystem, *args = self._socket.recv_multipart()
            if subsystem == b"hello":
                reply = [b"welcome", b"1.0", b"replay", sender]
            elif subsystem == b"ping":
                reply = [b"pong", *args[1:]]
            elif subsystem == b"pubsub":
                reply = [b"request_response", struct.pack("?", True)]
                self.subscriber = sender
            else:
                continue  # agentstop: the client disconnects and expects no answer
            try:
                self._socket.send_multipart([sender, peer, protocol, user, ident, subsystem, *reply])
            except zmq.ZMQError as error:
                # A client that has disconnected meanwhile cannot receive its answer, as on a real router.
                if error.errno != zmq.EHOSTUNREACH:
                    raise

    def publish(self, topic: bytes, body: bytes) -> float:
        """Send a message to the subscriber; return for how many seconds the queue was full."""
        assert self.subscriber is not None
        message = [self.subscriber, *_FRAMES, topic, body]
        try:
            self._socket.send_multipart(message, zmq.NOBLOCK)
        except zmq.Again:
            start = time.monotonic()
            self._socket.send_multipart(message)
            return time.monotonic() - start
        return 0.0


def _replay(file: Path, rate: float, router: _Router, permissions: _Permissions) -> tuple[Sent, array[float]]:
    times = array("d")
    held = full = behind = 0.0
    started = time.monotonic()
    with file.open("rb") as lines:
        for number, line in enumerate(lines):
            while number >= permissions.allowed and not permissions.end:
                wait_start = time.monotonic()
                router.answer(1)
                held += time.monotonic() - wait_start
            due = started + held + number / rate if rate else 0.0
            while rate and (remaining := due - time.monotonic()) > 0 and not permissions.end:
                router.answer(0)
                time.sleep(min(remaining, 0.001))
            if permissions.end:
                break
            topic, _, body = line.rstrip(b"\n").partition(b" ")
            now = time.monotonic()
            times.append(now)
            behind = max(behind, now - due) if rate else 0.0
            full += router.publish(topic, body)
            if not number % _POLL_EVERY:
                router.answer(0)
    return Sent(len(times), time.monotonic() - started, held, full, behind), times


def main(file: str, rate: str, times_file: str) -> None:
    """Listen, wait for the subscriber, replay the file, and continue to answer until the input ends."""
    permissions = _Permissions(sys.stdin)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        for option, value in ((zmq.ROUTER_MANDATORY, 1), (zmq.SNDHWM, _QUEUE), (zmq.LINGER, 0)):
            socket.setsockopt(option, value)
        socket.bind("tcp://127.0.0.1:*")
        print(socket.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
        router = _Router(socket)
        permissions.start()
        while router.subscriber is None and not permissions.end:
            router.answer(50)
        sent, times = _replay(Path(file), float(rate), router, permissions)
        Path(times_file).write_bytes(times.tobytes())
        while not permissions.end:
            router.answer(50)
        print(json.dumps(sent), flush=True)
        while not permissions.input_closed.is_set():
            router.answer(50)


if __name__ == "__main__":
    main(*sys.argv[1:])
