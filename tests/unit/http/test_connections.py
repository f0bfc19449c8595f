"""A server whose clients are slow, silent, or too many."""

from __future__ import annotations

import contextlib
import http.client
import resource
import socket
import threading
import time

import pytest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tieline.http.connections import Limits, Waiting, longest_waiting
from tieline.http.server import WebServer

PATIENCE = 60  # seconds, of a machine that has much else to do
SOON = Limits(connections=10, head=0.2, body=0.2, answer=0.2, idle=1)
NEVER = Limits(connections=10, head=PATIENCE, body=PATIENCE, answer=PATIENCE, idle=PATIENCE)


class Server:
    """Answers a body with its length; ``/slow`` when it is told to, ``/large`` with 30 MB."""

    def __init__(self, limits):
        self.asked, self.go_on = threading.Event(), threading.Event()
        routes = [
            Route("/", self._length, methods=["POST", "GET"]),
            Route("/slow", self._slow),
            Route("/large", self._large),
        ]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._server = WebServer(Starlette(routes=routes), self._listener, limits, name="test")
        self.connections = self._server.connections
        self._server.start()

    async def _length(self, request: Request) -> Response:
        return Response(str(len(await request.body())))

    async def _slow(self, _: Request) -> Response:
        self.asked.set()
        await run_in_threadpool(self.go_on.wait, PATIENCE)
        return Response("at last")

    async def _large(self, _: Request) -> Response:
        return Response(b"x" * 30_000_000)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def get(self, path="/", body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET" if body is None else "POST", path, body)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def has(self, number):
        """Wait until so many connections are there."""
        deadline = time.monotonic() + PATIENCE
        while len(self.connections) != number:
            assert time.monotonic() < deadline, f"{len(self.connections)} connections, not {number}"
            time.sleep(0.01)

    def stop(self):
        self.go_on.set()
        self._server.stop()


@pytest.fixture
def serve():
    with contextlib.ExitStack() as ends:

        def serve(limits):
            server = Server(limits)
            ends.callback(server.stop)
            return server

        yield serve


def until_closed(client):
    """All that the server sends until it closes the connection; it must."""
    found = b""
    with client, contextlib.suppress(ConnectionError):
        while data := client.recv(65536):
            found += data
    return found


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n"])
def test_a_client_that_does_not_finish_its_headers_is_told_and_closed(serve, begun):
    server = serve(SOON)
    client = server.connect()
    client.sendall(begun)
    assert until_closed(client).startswith(b"HTTP/1.1 408 ")
    server.has(0)


def test_headers_that_come_byte_by_byte_have_no_more_time(serve):
    server = serve(SOON)
    client = server.connect()
    client.sendall(b"GET / HTTP/1.1\r\nX-A: ")
    dripping = threading.Thread(target=drip, args=[client])
    dripping.start()
    server.has(1)
    server.has(0)
    dripping.join(PATIENCE)
    client.close()


def drip(client):
    """A byte at a time, until the server has closed the connection."""
    with contextlib.suppress(OSError):
        while True:
            client.sendall(b"a")
            time.sleep(0.02)


def test_a_client_that_does_not_finish_its_body_is_closed(serve):
    server = serve(SOON)
    client = server.connect()
    client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n0123")
    assert until_closed(client).startswith(b"HTTP/1.1 408 ")
    server.has(0)


def test_the_second_request_of_a_connection_has_its_own_time(serve):
    server = serve(SOON)
    client = server.connect()
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    client.sendall(b"GET / HT")
    assert b"HTTP/1.1 408 " in until_closed(client)
    server.has(0)


def test_a_client_that_does_not_take_its_answer_is_closed(serve):
    server = serve(SOON)
    with server.connect() as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        server.has(1)
        server.has(0)


def test_a_connection_without_a_request_is_closed_after_its_time(serve):
    server = serve(SOON)
    client = server.connect()
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    told = until_closed(client)
    assert told.startswith(b"HTTP/1.1 200 ")
    assert b" 408 " not in told


def test_a_request_that_is_being_answered_has_all_the_time_it_needs(serve):
    """Also where the server has as many connections as it takes."""
    server = serve(SOON._replace(connections=2, head=0.1, body=0.1))
    client = server.connect()
    client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert server.asked.wait(PATIENCE)
    for _ in range(5):
        assert until_closed(server.connect()).startswith(b"HTTP/1.1 408 ")
    server.go_on.set()
    assert until_closed(client).endswith(b"at last")


def test_where_all_are_being_answered_one_more_is_refused(serve):
    server = serve(NEVER._replace(connections=1))
    client = server.connect()
    client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert server.asked.wait(PATIENCE)
    assert until_closed(server.connect()).startswith(b"HTTP/1.1 503 ")
    server.go_on.set()
    assert until_closed(client).endswith(b"at last")


def test_1100_clients_that_never_finish_keep_nobody_out(serve):
    """None of them is ever late."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = serve(NEVER._replace(connections=Limits().connections))
    with contextlib.ExitStack() as clients:
        for number in range(1100):
            client = clients.enter_context(server.connect())
            head = b"GET / HTTP/1.1\r\nHost: a\r\n"
            client.sendall(head if number % 2 else head + b"Content-Length: 10\r\n\r\n012")
        server.has(Limits().connections)
        for number in range(100):
            assert server.get(body=b"x" * number) == str(number)


def test_who_makes_room_is_the_one_who_waited_longest_of_those_with_the_most():
    waiting = [Waiting("a", 1.0), Waiting("b", 3.0), Waiting("b", 2.0), Waiting("c", 0.0)]
    assert longest_waiting(waiting) == Waiting("b", 2.0)
    assert longest_waiting([]) is None
