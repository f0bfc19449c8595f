"""Prefixes of the bus: whole segments of a topic, never a pattern; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tieline_connectors.volttron_bus.platform_config import is_latin

ALL_PREFIXES = ("devices", "datalogger", "actuators", "analysis")
"""What ``all`` stands for, as in the old agents."""

_WILDCARDS = {"#", "+", "?", "$", "%", ">"}
"""Segments that are wildcards elsewhere (MQTT, shells, NATS)."""
_REGULAR = re.compile(r"^\^|\$$|\.[*+?]|\\|\([^()]*\|[^()]*\)|\[[^\]]*-[^\]]*\]")
"""What looks like a regular expression, and is in no name that a driver writes."""
_SHELL = re.compile(r"~(/|$)|.*\$[A-Z_]{2,}")
"""What a shell would expand."""


def parse_prefix(given: str) -> str:
    """The prefix, without a slash at its end. Raises ``ValueError`` with the fix for what cannot be one.

    The router compares text. A prefix with a wildcard subscribes without an error, and nothing ever comes.
    """
    if given.strip("/") == "":
        raise ValueError("name at least one prefix, such as devices, or all")
    if _SHELL.match(given):
        raise ValueError(
            f"{given!r} is plain text: variables such as $VOLTTRON_HOME and ~ are not expanded in a prefix. "
            "Write the first segments of the topics, such as devices"
        )
    plain = "/".join(_before_wildcard(given.strip("/").split("/")))
    if given.lower() == "all":
        raise ValueError(f"{given!r} is not a prefix of the bus; name them: {', '.join(ALL_PREFIXES)}")
    if plain != given.strip("/") or _REGULAR.search(given):
        fix = plain if plain and not _REGULAR.search(plain) else "whole segments such as devices/campus"
        if _is_only_wildcards(given):
            fix = "all, or the first segments of the topics, such as devices"
        raise ValueError(
            f"{given!r} is a pattern, and a prefix is plain text: nothing would ever come. Write {fix}; "
            "what lies below a prefix is read by itself"
        )
    if given.startswith("/"):
        raise ValueError(f"{given!r} begins with a slash, and no topic of the bus does. Write {plain}")
    if "" in plain.split("/"):
        fix = "/".join(segment for segment in plain.split("/") if segment)
        raise ValueError(f"{given!r} has an empty segment. Write {fix}")
    if not is_latin(plain):
        raise ValueError(f"no topic of the bus can begin with {plain!r}: only ISO-8859-1 travels there")
    return plain


def _before_wildcard(segments: Sequence[str]) -> list[str]:
    kept = []
    for segment in segments:
        if "*" in segment or segment in _WILDCARDS:
            break
        kept.append(segment)
    return kept


def _is_only_wildcards(given: str) -> bool:
    first = given.strip("/").partition("/")[0]
    return first in _WILDCARDS or first.strip("*") == ""
