"""Authenticate HTTP requests by the users file: basic authentication and bearer tokens.

Verifying a password takes tens of milliseconds by design. It runs in a thread, so that the event loop keeps
answering. Two verifications run at a time, one per client address; a recent success is remembered. What the
cache and the limits hold belongs to the event loop, so they need no lock.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from weakref import WeakValueDictionary

from anyio import CapacityLimiter, to_thread

from tieline.http.errors import HttpError, error_response
from tieline.http.failed_logins import FailedLogins, client_key
from tieline.http.passwords import UNKNOWN_USER_HASH, hash_token, verify_password
from tieline.http.users import Account, User

USER = "tieline.user"
"""In an ASGI scope: the ``User`` whose credentials the request has."""

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

_MAX_HEADER = 8192
_CONCURRENT_HASHES = 2  # each takes a processor and 19 MiB
_CACHED_LOGINS = 1000
_CACHE_SECONDS = 60.0


class Authenticator:
    """Finds the user of an ``Authorization`` header. Used by one event loop.

    ``clock``: seconds, monotonic. ``verify``: whether a hash is that of a password; called in a thread.
    """

    def __init__(
        self,
        accounts: Iterable[Account],
        *,
        clock: Callable[[], float] = time.monotonic,
        verify: Callable[[str, str], bool] = verify_password,
    ) -> None:
        known = list(accounts)
        self._passwords = {each.user.name: each for each in known if each.kind == "password"}
        self._tokens = {each.hash: each.user for each in known if each.kind == "token"}
        self._clock = clock
        self._verify = verify
        self._cache = _LoginCache()
        self._failed = FailedLogins()
        self._threads = CapacityLimiter(_CONCURRENT_HASHES)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def authenticate(self, header: bytes, client: str) -> User | None:
        """Return the user, or ``None`` if the credentials are missing or wrong.

        ``client``: the address of the client. Raises ``HttpError`` (429) after too many wrong passwords.
        """
        scheme, _, value = header.partition(b" ")
        if len(header) > _MAX_HEADER:
            return None
        if scheme.lower() == b"bearer":
            return self._tokens.get(hash_token(value.strip().decode("latin-1")))
        if scheme.lower() != b"basic":
            return None
        user = self._cache.get(header, self._clock())
        if user is not None:
            return user
        try:
            name, colon, password = base64.b64decode(value, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return await self._log_in(header, name, password, client) if colon else None

    async def _log_in(self, header: bytes, name: str, password: str, client: str) -> User | None:
        async with self._turn(client):
            now = self._clock()
            user = self._cache.get(header, now)  # another request may have verified it in the meantime
            if user is not None:
                return user
            wait = self._failed.seconds_until_allowed(client, now)
            if wait > 0:
                raise _too_many_failures(wait)
            account = self._passwords.get(name)
            password_hash = UNKNOWN_USER_HASH if account is None else account.hash
            is_right = await to_thread.run_sync(self._verify, password_hash, password, limiter=self._threads)
            if account is None or not is_right:
                self._failed.add(client, self._clock())
                return None
            self._cache.put(header, account.user, self._clock())
            return account.user

    def _turn(self, client: str) -> asyncio.Lock:
        """Return the lock of a client's address, which lives as long as a request of it waits."""
        key = client_key(client)
        lock = self._turns.get(key)
        if lock is None:
            lock = self._turns[key] = asyncio.Lock()
        return lock


class _LoginCache:
    """Headers that were verified in the last minute. It keeps a keyed hash of each, not the header."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._users: OrderedDict[bytes, tuple[User, float]] = OrderedDict()

    def get(self, header: bytes, now: float) -> User | None:
        user, expires = self._users.get(self._digest(header), (None, now))
        return user if now < expires else None

    def put(self, header: bytes, user: User, now: float) -> None:
        digest = self._digest(header)
        self._users[digest] = user, now + _CACHE_SECONDS
        self._users.move_to_end(digest)
        if len(self._users) > _CACHED_LOGINS:
            self._users.popitem(last=False)

    def _digest(self, header: bytes) -> bytes:
        return hmac.digest(self._key, header, "sha256")


class Authentication:
    """ASGI middleware: answers 401 without valid credentials, and sets ``scope[USER]`` otherwise.

    ``realm``: what a browser shows when it asks for a password. ``media_type``: of the error bodies.
    """

    def __init__(self, app: App, authenticator: Authenticator, realm: str, media_type: str) -> None:
        self._app = app
        self._authenticator = authenticator
        self._challenge = {"WWW-Authenticate": f'Basic realm="{realm}"'}
        self._media_type = media_type

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        client = scope.get("client") or ("", 0)
        try:
            user = await self._authenticator.authenticate(header, client[0])
            if user is None:
                raise HttpError(401, 401, "Unauthorized", self._challenge)
        except HttpError as error:
            await error_response(error, self._media_type)(scope, receive, send)
            return
        await self._app({**scope, USER: user}, receive, send)


def _too_many_failures(wait: float) -> HttpError:
    seconds = math.ceil(wait)
    return HttpError(
        429,
        429,
        f"Too many failed logins from this address. Try again in {seconds} seconds",
        {"Retry-After": str(seconds)},
    )
