"""A proxy in front of a MongoDB server that records when how many documents were acknowledged.

The server's answers pass through the proxy, which costs a fraction of a millisecond.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO
from urllib.parse import urlsplit

import bson
from typing_extensions import Self

_HEADER = struct.Struct("<iiii")
_MESSAGE = 2013
_INSERT = b"\x02insert\0"
_COMMAND = 16 + 4 + 1 + 4  # the command's first name follows header, flags, kind of section and length


class MongoTap:
    """Listens on 127.0.0.1 in front of a server.

    ``acknowledged`` has moments, each with the number of documents that were acknowledged by then.
    """

    def __init__(self, uri: str) -> None:
        self.acknowledged: list[tuple[float, int]] = []
        self.any_acknowledged = threading.Event()
        server = urlsplit(uri)
        self._server = (server.hostname or "127.0.0.1", server.port or 27017)
        self._listener = socket.create_server(("127.0.0.1", 0))
        # A direct connection: a replica set would give the client the server's own address.
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
        """The number of acknowledged documents."""
        return self.acknowledged[-1][1] if self.acknowledged else 0

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._ends += [client, server]
            inserts = _Inserts(self._count)
            directions = ((client, server, inserts.read_request), (server, client, inserts.read_reply))
            for source, target, read_message in directions:
                target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                thread = threading.Thread(
                    target=_forward, args=(source.makefile("rb"), target, read_message), daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _count(self, documents: int) -> None:
        with self._lock:
            self.acknowledged.append((time.monotonic(), self.documents + documents))
        self.any_acknowledged.set()


class _Inserts:
    """The unanswered inserts of one connection. Each answer calls ``count`` with its number of documents."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count
        self._unanswered: set[int] = set()

    def read_request(self, request: int, response_to: int, message: bytes) -> None:
        if message.startswith(_INSERT, _COMMAND):
            self._unanswered.add(request)

    def read_reply(self, request: int, response_to: int, message: bytes) -> None:
        if response_to in self._unanswered:
            self._unanswered.discard(response_to)
            self._count(int(bson.decode(message[21:])["n"]))


def _forward(
    source: BinaryIO, target: socket.socket, read_message: Callable[[int, int, bytes], None]
) -> None:
    """Forward messages until one end is closed."""
    with contextlib.suppress(OSError), source:
        while len(header := source.read(16)) == 16:
            size, request, response_to, operation = _HEADER.unpack(header)
            message = header + source.read(size - 16)
            if operation == _MESSAGE:
                read_message(request, response_to, message)
            target.sendall(message)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
