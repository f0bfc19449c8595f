"""Leave secrets and the content of records out of a support bundle; pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from tieline.broker.client_secrets import secrets as client_secrets

MASK = "********"
OMITTED = "(not in a support bundle)"

_URL_USER = re.compile(r"(?<=://)\S*@")  # up to the last one: a password may hold any character
_QUOTED = re.compile(
    r"""(?<![^\W_])b?(?P<quote>['"`])(?P<text>(?:(?!(?P=quote)).)+)(?P=quote)(?!\w)""", re.DOTALL
)
REFERENCE = re.compile(r"\$\{[A-Za-z]+:[^}]*\}")
_DECLARED_ELSEWHERE = (
    *("transforms.", "key.converter", "value.converter", "producer.override.", "consumer.override."),
    *("listeners", "schema.registry.", "security.", "sasl.", "ssl."),
)
"""Prefixes of settings of transforms, converters, listeners and clients."""
_SHOWN_UNCHECKED = frozenset(
    {"name", "connector.class", "topics", "topics.regex", "topic", "tasks.max", "key.converter"}
    | {"value.converter", "data.dir", "log.level", "log.format"}
)
_NAMES = frozenset(
    {"timestamp", "level", "logger", "connector", "task", "topic", "partition", "offset", "state", "type"}
)
"""Fields of a log line or a status whose text is a name, a time or a number."""
_CONTENT = frozenset({"key", "value", "headers", "record", "records", "message", "raw", "payload", "body"})
"""Fields that may hold the content of a record."""


def mask_settings(
    settings: Mapping[str, str], secret_keys: Collection[str], known_keys: Collection[str] | None
) -> dict[str, str]:
    """Return settings, as they are written in a file, without secrets.

    ``secret_keys``: those that a plugin declares to be secret. ``known_keys``: all that are declared; others
    are masked, since a misspelt key may hold a secret, too. ``None``: the configuration cannot be checked,
    so nothing is declared; only names of plugins and topics are shown then.
    """
    return {key: _mask_setting(key, text, secret_keys, known_keys) for key, text in settings.items()}


def _mask_setting(
    key: str, text: str, secret_keys: Collection[str], known_keys: Collection[str] | None
) -> str:
    if not text or REFERENCE.fullmatch(text):
        return text
    without_users = _URL_USER.sub(f"{MASK}@", text)
    if key in secret_keys or any(client_secrets({key: without_users.replace(f"{MASK}@", "")})):
        return MASK
    if known_keys is None:
        is_shown = key in _SHOWN_UNCHECKED
    else:
        is_shown = key in known_keys or key.startswith(_DECLARED_ELSEWHERE)
    return without_users if is_shown else MASK


def mask_content(value: Any, names: Collection[str], field: str = "") -> Any:
    """Return data of a log line or a status without what a message quotes, which may be a record's content.

    ``names``: texts that may be quoted, such as topics and settings.
    """
    if field in _CONTENT:
        return OMITTED
    if isinstance(value, str):
        return value if field in _NAMES else mask_quoted(value, names)
    if isinstance(value, Mapping):
        return {str(key): mask_content(item, names, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_content(item, names, field) for item in value]
    return value


def mask_quoted(text: str, names: Collection[str]) -> str:
    """Return a text without its quotations, except those of known names."""

    def masked(match: re.Match[str]) -> str:
        quote, quoted = match["quote"], match["text"]
        return match[0] if quoted in names else f"{quote}…{quote}"

    return _QUOTED.sub(masked, text)
