"""Prefixes of the bus: whole segments of a topic, never a pattern; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

ALL_PREFIXES = ("devices", "datalogger", "actuators", "analysis")
"""The prefixes that ``all`` stands for, as in the old agents."""

_WILDCARDS = {"#", "+", "?", "$", "%", ">"}
"""Segments that are wildcards elsewhere (MQTT, shells, NATS)."""
_REGULAR = re.compile(r"^\^|\$$|\.[*+?]|\\|\([^()]*\|[^()]*\)|\[[^\]]*-[^\]]*\]")
"""Signs of a regular expression that do not occur in a name from a driver."""
_SHELL = re.compile(r"~(/|$)|.*\$[A-Z_]{2,}")
"""Text that a shell would expand."""


def parse_prefix(text: str) -> str:
    """Return the prefix without a slash at its end. Raises ``ValueError`` with the fix.

    The router compares text. A prefix with a wildcard subscribes without an error, but never matches.
    """
    if text.strip("/") == "":
        raise ValueError("name at least one prefix, such as devices, or all")
    if _SHELL.match(text):
        raise ValueError(
            f"{text!r} is plain text: variables such as $VOLTTRON_HOME and ~ are not expanded in a prefix. "
            "Write the first segments of the topics, such as devices"
        )
    plain = "/".join(_before_wildcard(text.strip("/").split("/")))
    if text.lower() == "all":
        raise ValueError(f"{text!r} is not a prefix of the bus; name them: {', '.join(ALL_PREFIXES)}")
    if plain != text.strip("/") or _REGULAR.search(text):
        fix = plain if plain and not _REGULAR.search(plain) else "whole segments such as devices/campus"
        if _is_only_wildcards(text):
            fix = "all, or the first segments of the topics, such as devices"
        raise ValueError(
            f"{text!r} is a pattern, but a prefix is plain text and would never match. Write {fix}; "
            "topics below a prefix are included"
        )
    if text.startswith("/"):
        raise ValueError(f"{text!r} begins with a slash, but topics of the bus do not. Write {plain}")
    if "" in plain.split("/"):
        fix = "/".join(segment for segment in plain.split("/") if segment)
        raise ValueError(f"{text!r} has an empty segment. Write {fix}")
    if any(ord(character) > 255 for character in plain):
        raise ValueError(f"no topic of the bus can begin with {plain!r}: topics are in ISO-8859-1")
    return plain


def _before_wildcard(segments: Sequence[str]) -> list[str]:
    kept = []
    for segment in segments:
        if "*" in segment or segment in _WILDCARDS:
            break
        kept.append(segment)
    return kept


def _is_only_wildcards(text: str) -> bool:
    first = text.strip("/").partition("/")[0]
    return first in _WILDCARDS or first.strip("*") == ""
