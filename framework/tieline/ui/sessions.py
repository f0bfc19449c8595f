"""Who a browser's requests come from: sessions of users, or the local user of a worker without users.

A cookie holds a random token. The store has its hash, so that a copy of the file opens no session. A form
carries a second token that only this session's pages contain, which a foreign page cannot know.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import apsw

from tieline.api.pages import Viewer
from tieline.http.users import Account
from tieline.ui.store import PageStore, Session

log = logging.getLogger(__name__)

COOKIE = "tieline-session"
_IDLE = 12 * 3600.0  # seconds
_LONGEST = 7 * 86400.0
_TOUCH = 60.0


class Visit(NamedTuple):
    """A browser with its token. ``viewer`` is ``None`` if nobody has signed in."""

    token: str
    viewer: Viewer | None
    is_new: bool = False
    """Whether the browser has no cookie with this token yet."""


class Sessions:
    """Signs users in and out, and finds the user of a browser by its token. Any thread may call it.

    ``accounts``: the users; ``None``: every browser that reaches the loopback address is ``local``.
    """

    def __init__(
        self,
        store: PageStore,
        accounts: Iterable[Account] | None,
        local: Viewer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        known = None if accounts is None else list(accounts)
        self._users = (
            None
            if known is None
            else {each.user.name: Viewer(each.user.name, each.user.role.value) for each in known}
        )
        if known is not None:  # a new password ends the sessions of the old one
            store.keep_sessions({each.user.name: _hash(each.hash) for each in known})
        self._local = local
        self._clock = clock

    @property
    def needs_sign_in(self) -> bool:
        """Whether there are users."""
        return self._users is not None

    def visit(self, token: str) -> Visit:
        """Return who a request with this cookie comes from; ``token`` is empty without a cookie."""
        if not _is_token(token):
            token, is_new = secrets.token_urlsafe(32), True
        else:
            is_new = False
        if self._users is None:
            return Visit(token, self._local, is_new)
        user = None if is_new else self._signed_in(token)
        return Visit(token, None if user is None else self._users.get(user), is_new)

    def sign_in(self, user: str) -> str:
        """Open a session for a user who has been authenticated; return the token for the cookie."""
        token, now = secrets.token_urlsafe(32), self._clock()
        self._store.add_session(_hash(token), Session(user, now, now), now - _IDLE)
        return token

    def sign_out(self, token: str) -> None:
        """End a session."""
        self._store.remove_session(_hash(token))

    def form_token(self, token: str) -> str:
        """Return the token that a form of this session carries."""
        return hmac.new(self._store.secret, token.encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, token: str, given: str) -> bool:
        """Return whether a form comes from a page of this session."""
        return hmac.compare_digest(self.form_token(token).encode(), given.encode())

    def _signed_in(self, token: str) -> str | None:
        """Return the name of a session's user; ``None`` if there is no such session, or it has ended."""
        now, token_hash = self._clock(), _hash(token)
        session = self._store.session(token_hash)
        if session is None or now - session.used > _IDLE or now - session.created > _LONGEST:
            return None
        if now - session.used > _TOUCH:
            try:
                self._store.touch_session(token_hash, now)
            except apsw.Error as error:  # such as a full disk: pages must stay readable
                log.warning("the use of a session cannot be stored: %s", error)
        return session.user


def _is_token(text: str) -> bool:
    return 40 <= len(text) <= 64 and text.isascii() and text.replace("-", "").replace("_", "").isalnum()


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
