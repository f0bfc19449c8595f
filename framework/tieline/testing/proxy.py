"""A TCP connection that can be made to fail: between a client under test and a real server."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType

from typing_extensions import Self


class TcpProxy:
    """Passes bytes between a port of its own on 127.0.0.1 and a server's.

    ``freeze`` makes every present connection half-open: nothing passes any more and neither side learns of
    it, not even when one of them closes; connections made later work. ``cut`` closes all of them; ``refuse``
    also closes each new one at once, until ``accept``.
    """

    def __init__(self, host: str, port: int, delay: float = 0.0) -> None:
        """``delay``: seconds that each piece of data takes in each direction: half of a round trip."""
        self._server = (host, port)
        self.delay = delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._refusing = threading.Event()
        self._frozen: set[socket.socket] = set()
        self._open: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self._accept, name="tcp-proxy", daemon=True)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def refuse(self) -> None:
        """Be unavailable until ``accept``."""
        self._refusing.set()
        self.cut()

    def accept(self) -> None:
        """Take connections again."""
        self._refusing.clear()

    def freeze(self) -> None:
        """Make every present connection half-open."""
        with self._lock:
            self._frozen |= self._open

    def cut(self) -> None:
        """Close every connection, frozen ones too."""
        with self._lock:
            for end in self._open:
                _shut(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing.is_set():
                client.close()
                continue
            try:
                server = socket.create_connection(self._server, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            pair = _Pair(self, client, server)
            with self._lock:
                self._open |= {client, server}
                for source, target in ((client, server), (server, client)):
                    thread = threading.Thread(target=pair.carry, args=(source, target), daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def is_frozen(self, end: socket.socket) -> bool:
        """Return whether nothing passes this end of a connection any more."""
        with self._lock:
            return end in self._frozen

    def forget(self, *ends: socket.socket) -> None:
        """Close both ends of a connection that has ended."""
        with self._lock:
            self._open -= set(ends)
            self._frozen -= set(ends)
        for end in ends:
            end.close()


class _Pair:
    """Both directions of one connection; the last of them to end closes it."""

    def __init__(self, proxy: TcpProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._ends = (client, server)
        self._lock = threading.Lock()
        self._carrying = 2

    def carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if self._proxy.delay:
                    time.sleep(self._proxy.delay)
                if not self._proxy.is_frozen(source):
                    target.sendall(data)
        except OSError:
            pass
        if not self._proxy.is_frozen(source):
            _shut(target)
        with self._lock:
            self._carrying -= 1
            last = not self._carrying
        if last:
            self._proxy.forget(*self._ends)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
