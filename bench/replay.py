"""The generator: a VOLTTRON router in a process of its own that replays messages from a file.

`python -m bench.replay FILE RATE SENT`; ``Generator`` starts it. It speaks VIP to one subscriber as
``tieline_connectors.volttron_bus.testing.fake_router`` does, and sends no more than it is allowed to: a
line of its standard input is the number of messages that may have been sent by now, ``end`` ends the
sending. So what is on its way stays bounded, and a rate that it reached is one that was sustained. It never
drops: it waits, and tells.
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
_QUEUE = 10_000  # messages in its libzmq; behind them are the kernel's buffers
_LOOK_UP = 256  # messages between two looks at what the subscriber asks


class Sent(NamedTuple):
    """What the generator did: it sent so many in so many seconds, and of these waited so long.

    ``held_s``: for permission; ``full_s``: with its queue to the subscriber full; ``behind_s``: how far it
    was behind its rate at the worst.
    """

    messages: int
    seconds: float
    held_s: float
    full_s: float
    behind_s: float

    @property
    def is_the_limit(self) -> bool:
        """Nothing but itself held it up."""
        return self.held_s + self.full_s < 0.1 * self.seconds


class Generator:
    """The process; ``rate`` in messages a second, 0: as fast as it can. It ends with the context."""

    def __init__(self, file: Path, rate: float = 0) -> None:
        self._times = file.with_suffix(".sent")
        command = [sys.executable, "-m", "bench.replay", str(file), str(rate), str(self._times)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.address = self._line().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # the end of its input is its end
        if self._process.returncode and error is None:
            raise RuntimeError(f"the generator ended with {self._process.returncode}")

    def allow(self, messages: int) -> None:
        """So many may have been sent in all."""
        self._say(str(messages))

    def finish(self) -> Sent:
        """Send no more. It stays a router that sends nothing."""
        self._say("end")
        return Sent(*json.loads(self._line()))

    def times(self) -> list[float]:
        """When each message was handed to libzmq (monotonic, the same clock in every process)."""
        found = array("d")
        found.frombytes(self._times.read_bytes())
        return found.tolist()

    def feed(self, reached: Callable[[], int], window: int, seconds: float) -> list[tuple[float, int]]:
        """Let it send for so long, never more than ``window`` ahead of what has ``reached`` its end.

        The moments at which more was seen to have reached it, from the first on.
        """
        seen = [(0.0, 0)]
        end = None
        while end is None or time.monotonic() < end:
            there, now = reached(), time.monotonic()
            if there > seen[-1][1]:
                seen.append((now, there))
                end = end or now + seconds
            self.allow(there + window)
            time.sleep(0.002)
        return seen[1:]

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError("the generator has ended")
        return line


def write(file: Path, messages: Iterable[list[bytes]]) -> Path:
    """A file to replay, of publications' frames: topic, space, body a line."""
    with file.open("wb") as out:
        out.writelines(b"%b %b\n" % (frames[6], frames[7]) for frames in messages)
    return file


class _Orders(threading.Thread):
    """What standard input says."""

    def __init__(self, source: IO[str]) -> None:
        super().__init__(daemon=True)
        self.allowed = 0
        self.end = False
        self.over = threading.Event()
        self._source = source

    def run(self) -> None:
        for line in self._source:
            if line.strip() == "end":
                self.end = True
            else:
                self.allowed = int(line)
        self.end = True
        self.over.set()


class _Router:
    """As much of a router as one subscriber needs."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.subscriber: bytes | None = None
        self._socket = socket

    def answer(self, milliseconds: int) -> None:
        while self._socket.poll(milliseconds):
            milliseconds = 0
            sender, peer, protocol, user, ident, subsystem, *args = self._socket.recv_multipart()
            if subsystem == b"hello":
                rest = [b"welcome", b"1.0", b"replay", sender]
            elif subsystem == b"ping":
                rest = [b"pong", *args[1:]]
            else:
                rest = [b"request_response", struct.pack("?", True)]
                self.subscriber = sender
            self._socket.send_multipart([sender, peer, protocol, user, ident, subsystem, *rest])

    def publish(self, topic: bytes, body: bytes) -> float:
        """Seconds for which the queue was full."""
        assert self.subscriber is not None
        message = [self.subscriber, *_FRAMES, topic, body]
        try:
            self._socket.send_multipart(message, zmq.NOBLOCK)
        except zmq.Again:
            since = time.monotonic()
            self._socket.send_multipart(message)
            return time.monotonic() - since
        return 0.0


def _replay(file: Path, rate: float, router: _Router, orders: _Orders) -> tuple[Sent, array[float]]:
    times = array("d")
    held = full = behind = 0.0
    started = time.monotonic()
    with file.open("rb") as lines:
        for number, line in enumerate(lines):
            while number >= orders.allowed and not orders.end:
                since = time.monotonic()
                router.answer(1)
                held += time.monotonic() - since
            due = started + held + number / rate if rate else 0.0
            while rate and (left := due - time.monotonic()) > 0 and not orders.end:
                router.answer(0)
                time.sleep(min(left, 0.001))
            if orders.end:
                break
            topic, _, body = line.rstrip(b"\n").partition(b" ")
            now = time.monotonic()
            times.append(now)
            behind = max(behind, now - due) if rate else 0.0
            full += router.publish(topic, body)
            if not number % _LOOK_UP:
                router.answer(0)
    return Sent(len(times), time.monotonic() - started, held, full, behind), times


def main(file: str, rate: str, sent: str) -> None:
    """Listen, wait for the subscriber, replay, go on answering until the input ends."""
    orders = _Orders(sys.stdin)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        for option, value in ((zmq.ROUTER_MANDATORY, 1), (zmq.SNDHWM, _QUEUE), (zmq.LINGER, 0)):
            socket.setsockopt(option, value)
        socket.bind("tcp://127.0.0.1:*")
        print(socket.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
        router = _Router(socket)
        orders.start()
        while router.subscriber is None and not orders.end:
            router.answer(50)
        done, times = _replay(Path(file), float(rate), router, orders)
        Path(sent).write_bytes(times.tobytes())
        while not orders.end:
            router.answer(50)
        print(json.dumps(done), flush=True)
        while not orders.over.is_set():
            router.answer(50)


if __name__ == "__main__":
    main(*sys.argv[1:])
