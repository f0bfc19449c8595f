"""Hashes of passwords and tokens. docs/decisions/password-hashes.md says why these and no others."""

from __future__ import annotations

import hashlib
import secrets

from argon2 import PasswordHasher, Type
from argon2.exceptions import VerifyMismatchError

_hasher = PasswordHasher(
    time_cost=2, memory_cost=19 * 1024, parallelism=1, hash_len=32, salt_len=16, type=Type.ID
)
UNKNOWN_USER_HASH = f"$argon2id$v=19$m={19 * 1024},t=2,p=1${'A' * 22}${'A' * 43}"
"""Verified for a user who does not exist, so that the answer takes as long as for a wrong password."""

_TOKEN_PREFIX = "tieline_"  # lets scanners for leaked secrets recognize a token
_TOKEN_BYTES = 32


def hash_password(password: str) -> str:
    """Return the argon2id hash of a password, with its own salt. Takes tens of milliseconds."""
    return _hasher.hash(password)


def verify_password(password_hash: str, password: str) -> bool:
    """Return whether the password has this hash. Takes tens of milliseconds, and releases the GIL."""
    try:
        return _hasher.verify(password_hash, password)
    except VerifyMismatchError:
        return False


def generate_token() -> str:
    """Return a new token with 256 random bits."""
    return _TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)


def hash_token(token: str) -> str:
    """Return the hash under which the users file holds a token.

    A plain SHA-256 suffices: unlike a password, a token of 256 random bits cannot be guessed from its hash.
    """
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"
