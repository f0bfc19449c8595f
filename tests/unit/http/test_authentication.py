"""Authentication: who is let in, what a wrong password costs, and that nothing else waits for it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tieline.http.authentication import USER, Authentication, Authenticator
from tieline.http.errors import HttpError
from tieline.http.passwords import UNKNOWN_USER_HASH, generate_token, hash_password, hash_token
from tieline.http.users import Account, Role, User

ANN = User("ann", Role.OPERATOR)
CI = User("ci", Role.VIEWER)
TOKEN = "tieline_dGhlIHRva2VuIG9mIHRoZXNlIHRlc3Rz-0123456789a"


def basic(name, password):
    return b"Basic " + base64.b64encode(f"{name}:{password}".encode())


class Hashes:
    """Verifies a password that equals its hash, and counts what was verified."""

    def __init__(self):
        self.calls: list[tuple[str, str]] = []
        self.now = 1000.0
        self.running = self.most = 0
        self.may_end = threading.Event()
        self.may_end.set()
        self._lock = threading.Lock()

    def verify(self, hash_, password):
        with self._lock:
            self.calls.append((hash_, password))
            self.running += 1
            self.most = max(self.most, self.running)
        self.may_end.wait(30)
        with self._lock:
            self.running -= 1
        return hash_ == password


@pytest.fixture
def hashes():
    return Hashes()


@pytest.fixture
def authenticator(hashes):
    accounts = [Account(ANN, "password", "s3cret"), Account(CI, "token", hash_token(TOKEN))]
    return Authenticator(accounts, clock=lambda: hashes.now, verify=hashes.verify)


def log_in(authenticator, *headers, client="10.0.0.1"):
    """Return what each request in turn gets: a user, ``None``, or the status of an error."""

    async def each():
        answers = []
        for header in headers:
            try:
                answers.append(await authenticator.authenticate(header, client))
            except HttpError as error:
                answers.append(error.status)
        return answers

    return asyncio.run(each())


def test_a_user_is_authenticated_by_password_or_token(authenticator):
    headers = [basic("ann", "s3cret"), b"Bearer " + TOKEN.encode(), b"bearer  " + TOKEN.encode() + b" "]
    assert log_in(authenticator, *headers) == [ANN, CI, CI]


def test_real_hashes_are_verified():
    authenticator = Authenticator([Account(ANN, "password", hash_password("correct horse"))])
    headers = [basic("ann", "correct horse"), basic("ann", "wrong horse"), basic("bob", "correct horse")]
    assert log_in(authenticator, *headers) == [ANN, None, None]


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Basic",
        b"Basic !!!",
        b"Basic " + base64.b64encode(b"ann"),
        b"Basic " + base64.b64encode(b"\xff:s3cret"),
        b"Basic " + base64.b64encode(b"ann:s3cret:"),
        b"Basic " + base64.b64encode(b"ann:" + b"x" * 9000),
        b"Bearer",
        b"Bearer s3cret",
        b"Bearer \xff",
        b"Bearer " + hash_token(TOKEN).encode(),
        b"Digest " + TOKEN.encode(),
        b"Basic " + base64.b64encode(f"ci:{TOKEN}".encode()),
        b"Basic " + base64.b64encode(f"ci:{hash_token(TOKEN)}:".encode()),
    ],
)
def test_other_credentials_are_refused(authenticator, header):
    assert log_in(authenticator, header) == [None]


def test_an_unknown_user_costs_the_same_verification_as_a_wrong_password(authenticator, hashes):
    log_in(authenticator, basic("ann", "wrong"), basic("bob", "wrong"), basic("ci", "wrong"))
    assert hashes.calls == [
        ("s3cret", "wrong"),
        (UNKNOWN_USER_HASH, "wrong"),
        (UNKNOWN_USER_HASH, "wrong"),
    ]


def test_the_hash_of_a_token_is_not_a_password(authenticator, hashes):
    """The account of a token has no password, also not its hash."""
    assert log_in(authenticator, basic("ci", hash_token(TOKEN))) == [None]
    assert hashes.calls == [(UNKNOWN_USER_HASH, hash_token(TOKEN))]


def test_a_verified_password_is_remembered_for_a_minute(authenticator, hashes):
    right = basic("ann", "s3cret")
    log_in(authenticator, right, right, right)
    hashes.now += 59
    log_in(authenticator, right)
    assert len(hashes.calls) == 1
    hashes.now += 2
    assert log_in(authenticator, right) == [ANN]
    assert len(hashes.calls) == 2


def test_a_wrong_password_is_not_remembered_and_a_remembered_one_admits_no_other(authenticator, hashes):
    assert log_in(authenticator, basic("ann", "s3cret"), basic("ann", "wrong")) == [ANN, None]
    assert log_in(authenticator, basic("ann", "wrong")) == [None]
    assert len(hashes.calls) == 3


def test_the_cache_has_a_limit():
    accounts = [Account(User(f"u{n}", Role.VIEWER), "password", "x") for n in range(1500)]
    hashes = Hashes()
    authenticator = Authenticator(accounts, clock=lambda: hashes.now, verify=hashes.verify)
    headers = [basic(f"u{n}", "x") for n in range(1500)]
    log_in(authenticator, *headers)
    log_in(authenticator, *headers[500:])
    assert len(hashes.calls) == 1500
    log_in(authenticator, headers[0])
    assert len(hashes.calls) == 1501


def test_after_ten_wrong_passwords_an_address_must_wait_and_no_hash_is_computed(authenticator, hashes):
    wrong = [basic("ann", f"wrong{n}") for n in range(15)]
    assert log_in(authenticator, *wrong) == [None] * 10 + [429] * 5
    assert len(hashes.calls) == 10
    assert log_in(authenticator, basic("ann", "s3cret"), client="10.0.0.2") == [ANN]
    hashes.now += 6.1
    assert log_in(authenticator, wrong[0], wrong[1]) == [None, 429]


def test_a_remembered_user_is_not_locked_out_by_failures_from_the_same_address(authenticator):
    right, wrong = basic("ann", "s3cret"), basic("ann", "wrong")
    assert log_in(authenticator, right, *[wrong] * 12, right)[-2:] == [429, ANN]


def test_failures_do_not_lock_out_tokens(authenticator):
    wrong = [basic("ann", "wrong")] * 12
    assert log_in(authenticator, *wrong, b"Bearer " + TOKEN.encode())[-1] == CI


def test_many_requests_at_once_with_one_password_compute_one_hash(authenticator, hashes):
    async def all_at_once():
        requests = [authenticator.authenticate(basic("ann", "s3cret"), "10.0.0.1") for _ in range(50)]
        return await asyncio.gather(*requests)

    assert asyncio.run(all_at_once()) == [ANN] * 50
    assert len(hashes.calls) == 1


def test_many_wrong_passwords_at_once_compute_ten_hashes(authenticator, hashes):
    async def all_at_once():
        requests = [authenticator.authenticate(basic("ann", f"{n}"), "10.0.0.1") for n in range(50)]
        return await asyncio.gather(*requests, return_exceptions=True)

    answers = asyncio.run(all_at_once())
    assert answers.count(None) == 10
    assert len(hashes.calls) == 10


def test_two_hashes_are_computed_at_once_and_the_event_loop_does_not_wait_for_them(authenticator, hashes):
    hashes.may_end.clear()

    async def many_addresses():
        requests = [
            asyncio.ensure_future(authenticator.authenticate(basic("ann", "wrong"), f"10.0.0.{n}"))
            for n in range(10)
        ]
        while hashes.running < 2:
            await asyncio.sleep(0.001)
        user = await authenticator.authenticate(b"Bearer " + TOKEN.encode(), "10.0.0.1")
        hashes.may_end.set()
        return user, await asyncio.gather(*requests)

    assert asyncio.run(many_addresses()) == (CI, [None] * 10)
    assert hashes.most == 2


def test_addresses_of_one_ipv6_network_share_a_limit(authenticator, hashes):
    for number in range(12):
        log_in(authenticator, basic("ann", "wrong"), client=f"2001:db8::{number + 1:x}")
    assert len(hashes.calls) == 10
    assert log_in(authenticator, basic("ann", "s3cret"), client="2001:db8:0:1::1") == [ANN]


def test_the_middleware_passes_the_user_on_and_answers_401_and_429(authenticator):
    async def name(request):
        return PlainTextResponse(request.scope[USER].name)

    app = Authentication(
        Starlette(routes=[Route("/", name)]), authenticator, "test", "application/vnd.test+json"
    )

    def ask(*headers):
        sent = []

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "headers": [(b"authorization", header) for header in headers],
            "client": ("10.0.0.1", 1),
        }
        asyncio.run(app(scope, receive, send))
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]

    assert ask(basic("ann", "s3cret"))[::2] == (200, b"ann")
    status, headers, body = ask()
    assert (status, body) == (401, b'{"error_code":401,"message":"Unauthorized"}')
    assert headers[b"www-authenticate"] == b'Basic realm="test"'
    assert headers[b"content-type"] == b"application/vnd.test+json"
    for _ in range(10):
        ask(basic("ann", "wrong"))
    status, headers, body = ask(basic("ann", "wrong"))
    assert (status, headers[b"retry-after"]) == (429, b"6")
    assert b'"error_code":429' in body


def test_a_token_is_random_and_only_its_hash_is_kept():
    assert len({generate_token() for _ in range(100)}) == 100
    assert all(len(generate_token()) >= 51 for _ in range(10))
    assert hash_token(TOKEN) == f"sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"
