"""Points: one canonical text for each, made once, where a command enters; pure.

A command names a register by a text, and every platform reads that text in its own way. The actuators of
8, 9 and 10 strip slashes and split at the last one. Their drivers look up the device's path and the point's
name unchanged. 2.x joins both and adds the prefix ``devices/`` unless it is there already. None of them
expands a wildcard, ignores case or changes a Unicode form. `point_of` accepts only texts that all platforms
read alike, and returns one text for each register. Policy, limits, ledger, partition key, signature and
driver see only this text.

Two tokens express what a path alone cannot: ``{/}`` is a slash within a point's name, ``{*}`` a star. They
need no escaping in JSON, in YAML or at a shell.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Any

MAX_POINT = 500
MAX_SEGMENTS = 20
SLASH, STAR = "{/}", "{*}"
_SLASH, _STAR, WILDCARD = "\0", "\1", "\2"
"""What stands for the tokens and a pattern's ``*`` while a path is parsed; no path can contain them."""
_FIRST = "devices"
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Marks and letters that are invisible."""


def point_of(text: Any, what: str = "a point") -> str:
    """Return the canonical text of the point that a command names, without the prefix ``devices/``.

    Raises ``ValueError`` with the reason if a platform could read the text differently.
    """
    path = _parse_path(text, what)
    if "*" in path:
        raise ValueError(f"{what} must name one point; write {STAR} for a star in its name: {text!r}")
    segments = _segments(path, what, text)
    if not 2 <= len(segments) <= MAX_SEGMENTS:
        raise ValueError(_not_a_full_path(what, text))
    return _format_path("/".join(segments))


def point_pattern(text: Any, what: str = "a pattern") -> str:
    """Return a policy's pattern of points in the canonical form of `point_of`.

    Raises ``ValueError`` if no point can ever match it.
    """
    segments = _segments(_parse_path(text, what), what, text)
    if any("**" in segment and segment != "**" for segment in segments):
        raise ValueError(f"{text!r}: ** must be a whole segment, such as campus/**/Setpoint")
    least = sum(segment != "**" for segment in segments)
    if least > MAX_SEGMENTS or (len(segments) < 2 and "**" not in segments):
        raise ValueError(_not_a_full_path(what, text))
    return _format_path("/".join(segments))


def split(point: str) -> tuple[str, str]:
    """Return the device's path and the point's name as a driver has them, without tokens."""
    device, _, name = point.replace(SLASH, _SLASH).rpartition("/")
    return device.replace(STAR, "*"), name.replace(_SLASH, "/").replace(STAR, "*")


def actuator_topic(point: str) -> tuple[str, ...]:
    """Return how an actuator names a point: its topic, or device and name if the name has a slash."""
    device, name = split(point)
    return (device, name) if "/" in name else (f"{device}/{name}",)


def is_sendable_topic(text: str) -> bool:
    """Return whether VOLTTRON can send a text as a topic.

    Its agents try to send any text. One that they cannot encode breaks their connection permanently: neither
    the rest of the message nor anything after it is sent.
    """
    try:
        text.encode("iso-8859-1")
    except UnicodeEncodeError:
        return False
    return True


@functools.lru_cache(maxsize=10_000)
def key_of(path: str) -> str:
    """Return the key for comparing paths: equal for two texts that name one register on any platform.

    It is coarser than any platform: case and Unicode forms do not count, and a slash within a name equals one
    between segments, as 2.x reads it. So no spelling evades a rule or a limit. It accepts all texts of older
    ledgers.
    """
    while (key := _folded_once(path)) != path:  # a fold may leave a token, or a prefix, again
        path = key
    return key


def pattern_key(text: str) -> tuple[str, ...]:
    """Return the keys of a pattern's segments, each ``*`` as `WILDCARD`."""
    literal = text.replace(STAR, _STAR).replace("*", WILDCARD).replace(_STAR, STAR)
    return tuple(key_of(literal).split("/"))


def device_keys(point: str) -> frozenset[str]:
    """Return the keys of the devices that a point may belong to.

    There are two if its name contains a slash: the driver of 2.x could have it in either way.
    """
    return frozenset({key_of(split(point)[0]), key_of(point).rpartition("/")[0]})


def _parse_path(text: Any, what: str) -> str:
    """Return the text with each token as one character, without outer slashes and without ``devices/``."""
    if not isinstance(text, str) or not 0 < len(text) <= MAX_POINT:
        raise ValueError(f"{what} must be a printable text of 1 to {MAX_POINT} characters")
    for character in text:
        if unicodedata.category(character) in _INVISIBLE or _BLANK.match(character):
            message = f"U+{ord(character):04X} is invisible; remove it"
            raise ValueError(f"{what} must be a printable text of 1 to {MAX_POINT} characters: {message}")
    path = text.replace(SLASH, _SLASH).replace(STAR, _STAR).strip("/")
    return path.removeprefix(f"{_FIRST}/")


def _format_path(path: str) -> str:
    return path.replace(_SLASH, SLASH).replace(_STAR, STAR)


def _segments(path: str, what: str, text: str) -> list[str]:
    segments = path.split("/")
    problem = ""
    if "" in segments:
        problem = "it has an empty segment (one slash too many)"
    elif "." in segments or ".." in segments:
        problem = "it has a segment . or .."
    elif any(segment != segment.strip() for segment in segments):
        problem = "it has a segment with white space at its ends"
    elif any(_SLASH in segment for segment in segments[:-1]):
        problem = f"{SLASH} is allowed in the name of a point, not in the path of a device"
    elif not all(map(is_sendable_topic, segments[:-1])):
        problem = "the path of a device is sent as a topic, which may contain only characters of ISO-8859-1"
    elif _folded(segments[0]) == _FIRST:
        problem = f"platforms differ in how they read {segments[0]}/ at its beginning; remove it"
    if problem:
        raise ValueError(f"{_not_a_full_path(what, text)}: {problem}")
    return segments


def _not_a_full_path(what: str, text: str) -> str:
    return f"{what} must be a full path such as campus/building/ahu1/CoolingSetpoint, not {text!r}"


def _folded_once(path: str) -> str:
    flat = path.replace(SLASH, "/").replace(STAR, "*").strip("/")
    return (flat.lower() if flat.isascii() else _folded(flat)).removeprefix(f"{_FIRST}/")


def _folded(text: str) -> str:
    """Return Unicode's compatibility caseless form (D146): what looks the same is the same."""
    text = unicodedata.normalize("NFD", text)
    for _ in range(2):
        text = unicodedata.normalize("NFKD", text.casefold())
    return text
