"""The secrets among the settings of a client of Kafka or of a schema registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

_SECRET_WORDS = (
    *("password", "passphrase", "secret", "user.info", "jaas", "token", "credential"),
    *("key.pem", "private.key", "keystore.key"),
)
_NO_SECRETS = (".location", ".source", ".url")
"""Endings of keys whose value says where a secret is, not what it is."""


def secrets(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield every text of these settings that must not be printed."""
    for key, value in settings.items():
        text = value if isinstance(value, str) else ""
        if any(word in key.lower() for word in _SECRET_WORDS) and not key.endswith(_NO_SECRETS) and text:
            yield text
            if key.endswith("user.info") and text.partition(":")[2]:
                yield text.partition(":")[2]
        for url in text.split(",") if "@" in text else ():
            try:
                password = urlsplit(url.strip()).password
            except ValueError:  # not a URL
                continue
            if password:
                yield from {password, unquote(password)}


def without_secrets(message: str, settings: Mapping[str, Any]) -> str:
    """Return the message with every secret of these settings masked."""
    for secret in sorted(secrets(settings), key=len, reverse=True):
        message = message.replace(secret, "***")
    return message
