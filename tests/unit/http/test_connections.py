"""A server with slow, silent, or too many clients."""

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

PATIENCE = 60  # seconds, for a busy machine
SOON = Limits(connections=10, head=0.2, body=0.2, answer=0.2, idle=1)
NEVER = Limits(connections=10, head=PATIENCE, body=PATIENCE, answer=PATIENCE, idle=PATIENCE)


class Server:
    """Answers with the length of the body; ``/slow`` after ``resume`` is set, ``/large`` with 30 MB."""

    def __init__(self, limits):
        self.requested, self.resume = threading.Event(), threading.Event()
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
        self.requested.set()
        await run_in_threadpool(self.resume.wait, PATIENCE)
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

    def wait_for(self, number):
        """Wait for this number of connections."""
        deadline = time.monotonic() + PATIENCE
        while len(self.connections) != number:
            assert time.monotonic() < deadline, f"{len(self.connections)} connections, not {number}"
            time.sleep(0.01)

    def stop(self):
        self.resume.set()
        self._server.stop()


@pytest.fixture
def serve():
    with contextlib.ExitStack() as ends:

        def serve(limits):
            server = Server(limits)
            ends.callback(server.stop)
            return server

        yield serve


def read_until_closed(client):
    """Return what the server sends until it closes the connection, which it must do."""
    received = b""
    with client, contextlib.suppress(ConnectionError):
        while data := client.recv(65536):
            received += data
    return received


@pytest.mark.parametrize("head", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n"])
def test_a_client_that_does_not_finish_its_headers_gets_408_and_is_disconnected(serve, head):
    server = serve(SOON)
    client = server.connect()
    client.sendall(head)
    assert read_until_closed(client).startswith(b"HTTP/1.1 408 ")
    server.wait_for(0)


def test_headers_that_arrive_byte_by_byte_get_no_extra_time(serve):
    server = serve(SOON)
    client = server.connect()
    client.sendall(b"GET / HTTP/1.1\r\nX-A: ")
    dripping = threading.Thread(target=drip, args=[client])
    dripping.start()
    server.wait_for(1)
    server.wait_for(0)
    dripping.join(PATIENCE)
    client.close()


def drip(client):
    """Send byte by byte until the server closes the connection."""
    with contextlib.suppress(OSError):
        while True:
            client.sendall(b"a")
            time.sleep(0.02)


def test_a_client_that_does_not_finish_its_body_is_disconnected(serve):
    server = serve(SOON)
    client = server.connect()
    client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n0123")
    assert read_until_closed(client).startswith(b"HTTP/1.1 408 ")
    server.wait_for(0)


def test_the_second_request_of_a_connection_has_its_own_time_limit(serve):
    server = serve(SOON)
    client = server.connect()
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    client.sendall(b"GET / HT")
    assert b"HTTP/1.1 408 " in read_until_closed(client)
    server.wait_for(0)


def test_a_client_that_does_not_read_its_answer_is_disconnected(serve):
    server = serve(SOON)
    with server.connect() as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        server.wait_for(1)
        server.wait_for(0)


def test_an_idle_connection_is_closed_after_its_time_limit(serve):
    server = serve(SOON)
    client = server.connect()
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = read_until_closed(client)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b" 408 " not in answer


def test_computing_an_answer_has_no_time_limit(serve):
    """Even if the server has reached its limit of connections."""
    server = serve(SOON._replace(connections=2, head=0.1, body=0.1))
    client = server.connect()
    client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert server.requested.wait(PATIENCE)
    for _ in range(5):
        assert read_until_closed(server.connect()).startswith(b"HTTP/1.1 408 ")
    server.resume.set()
    assert read_until_closed(client).endswith(b"at last")


def test_a_new_connection_is_refused_if_all_others_are_being_answered(serve):
    server = serve(NEVER._replace(connections=1))
    client = server.connect()
    client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert server.requested.wait(PATIENCE)
    assert read_until_closed(server.connect()).startswith(b"HTTP/1.1 503 ")
    server.resume.set()
    assert read_until_closed(client).endswith(b"at last")


@pytest.mark.slow
def test_1100_clients_that_never_finish_do_not_block_other_clients(serve):
    """None of them ever exceeds its time limit."""
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
        server.wait_for(Limits().connections)
        for number in range(100):
            assert server.get(body=b"x" * number) == str(number)


def test_the_longest_waiting_connection_of_the_busiest_address_is_closed_first():
    waiting = [Waiting("a", 1.0), Waiting("b", 3.0), Waiting("b", 2.0), Waiting("c", 0.0)]
    assert longest_waiting(waiting) == Waiting("b", 2.0)
    assert longest_waiting([]) is None
