"""A MongoDB connection looked at on its way: when the server has acknowledged how many documents.

Its answers pass through here, so what it says is what the worker is told, at that moment; the way through
costs a fraction of a millisecond.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType
from typing import BinaryIO
from urllib.parse import urlsplit

import bson
from typing_extensions import Self

_HEADER = struct.Struct("<iiii")
_MESSAGE = 2013
_INSERT = b"\x02insert\0"
_COMMAND = 16 + 4 + 1 + 4  # header, flags, kind of section, length of the command: then its first name


class MongoTap:
    """Listens on 127.0.0.1 in front of a server. ``acknowledged``: moments, and documents in all by then."""

    def __init__(self, uri: str) -> None:
        self.acknowledged: list[tuple[float, int]] = []
        self.first = threading.Event()
        place = urlsplit(uri)
        self._server = (place.hostname or "127.0.0.1", place.port or 27017)
        self._listener = socket.create_server(("127.0.0.1", 0))
        # direct: the server would tell a client that looks for its replica set an address beside this one
        self.uri = f"mongodb://127.0.0.1:{self._listener.getsockname()[1]}/?directConnection=true"
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    @property
    def documents(self) -> int:
        """How many are acknowledged."""
        return self.acknowledged[-1][1] if self.acknowledged else 0

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._ends += [client, server]
            inserts: set[int] = set()
            for source, target, look in ((client, server, _Asked), (server, client, _Answered)):
                target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                carry = threading.Thread(
                    target=_carry, args=(source.makefile("rb"), target, look(self, inserts)), daemon=True
                )
                self._threads.append(carry)
                carry.start()

    def note(self, documents: int) -> None:
        """An insert of so many was acknowledged just now."""
        with self._lock:
            self.acknowledged.append((time.monotonic(), self.documents + documents))
        self.first.set()


class _Asked:
    def __init__(self, tap: MongoTap, inserts: set[int]) -> None:
        self._inserts = inserts

    def __call__(self, request: int, answers: int, message: bytes) -> None:
        if message.startswith(_INSERT, _COMMAND):
            self._inserts.add(request)


class _Answered:
    def __init__(self, tap: MongoTap, inserts: set[int]) -> None:
        self._tap = tap
        self._inserts = inserts

    def __call__(self, request: int, answers: int, message: bytes) -> None:
        if answers in self._inserts:
            self._inserts.discard(answers)
            self._tap.note(int(bson.decode(message[21:])["n"]))


def _carry(source: BinaryIO, target: socket.socket, look: _Asked | _Answered) -> None:
    """Message by message, until one end is closed."""
    with contextlib.suppress(OSError), source:
        while len(header := source.read(16)) == 16:
            size, request, answers, operation = _HEADER.unpack(header)
            message = header + source.read(size - 16)
            if operation == _MESSAGE:
                look(request, answers, message)
            target.sendall(message)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
