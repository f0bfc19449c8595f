"""What a point is: one canonical text for each, made once, where a command enters; pure.

A command reaches a register by a text, and every platform reads that text in its own way. The actuators of
8, 9 and 10 strip slashes and split at the last one. Their drivers look for the device's path and the
point's name as they are. 2.x joins both and puts ``devices/`` in front unless it stands there already.
None of them expands a wildcard, folds capitals or changes a Unicode form. `point_of` leaves one text that
all of them read alike, and refuses every other; policy, limits, ledger, partition key, signature and
driver see nothing else.

Two tokens say what a path alone cannot: ``{/}`` is a slash within a point's name, ``{*}`` a star. They need
no escaping in JSON, in YAML or at a shell.
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
"""What the tokens and a pattern's ``*`` are while a path is taken apart; no path can hold them."""
_FIRST = "devices"
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Marks and letters that leave nothing to be seen."""


def point_of(found: Any, what: str = "a point") -> str:
    """Return the one text of the point that a command names, without ``devices/`` in front.

    Raises ``ValueError`` with the reason where a platform could read the text differently.
    """
    path = _taken_apart(found, what)
    if "*" in path:
        raise ValueError(f"{what} names one point; write {STAR} for a star in its name: {found!r}")
    segments = _segments(path, what, found)
    if not 2 <= len(segments) <= MAX_SEGMENTS:
        raise ValueError(_no_full_path(what, found))
    return _put_together("/".join(segments))


def pattern(found: Any, what: str = "a pattern") -> str:
    """Return a policy's pattern of points in the form that `point_of` gives a point.

    Raises ``ValueError`` where no point can ever match it.
    """
    segments = _segments(_taken_apart(found, what), what, found)
    if any("**" in segment and segment != "**" for segment in segments):
        raise ValueError(f"{found!r}: ** stands alone in its segment, such as campus/**/Setpoint")
    least = sum(segment != "**" for segment in segments)
    if least > MAX_SEGMENTS or (len(segments) < 2 and "**" not in segments):
        raise ValueError(_no_full_path(what, found))
    return _put_together("/".join(segments))


def split(point: str) -> tuple[str, str]:
    """Return the device's path and the point's name as a driver knows them, without tokens."""
    device, _, name = point.replace(SLASH, _SLASH).rpartition("/")
    return device.replace(STAR, "*"), name.replace(_SLASH, "/").replace(STAR, "*")


def actuator_topic(point: str) -> tuple[str, ...]:
    """Return how an actuator is told a point: its topic, or device and name where the name has a slash."""
    device, name = split(point)
    return (device, name) if "/" in name else (f"{device}/{name}",)


def fits_a_topic(text: str) -> bool:
    """Return whether VOLTTRON can send a text as a topic.

    Its agents try it with any text, and one that they cannot encode leaves their connection useless for
    ever: the rest of the message is never sent, and nothing after it.
    """
    try:
        text.encode("iso-8859-1")
    except UnicodeEncodeError:
        return False
    return True


@functools.lru_cache(maxsize=10_000)
def key_of(path: str) -> str:
    """Return what a path is compared by: equal for two texts that reach one register on any platform.

    Coarser than any platform: capitals and Unicode forms make no difference, and a slash within a name is
    one between segments, as 2.x reads it. So a spelling gets round no rule and no limit. Takes whatever an
    older ledger holds.
    """
    while (key := _folded_once(path)) != path:  # what a fold leaves may be a token, or a prefix, again
        path = key
    return key


def pattern_key(text: str) -> tuple[str, ...]:
    """Return the segments of a pattern as `key_of` would compare them, each ``*`` as `WILDCARD`."""
    literal = text.replace(STAR, _STAR).replace("*", WILDCARD).replace(_STAR, STAR)
    return tuple(key_of(literal).split("/"))


def device_keys(point: str) -> frozenset[str]:
    """Return the keys of the devices that a point may belong to.

    More than one where its name holds a slash: the driver of 2.x could know it in either way.
    """
    return frozenset({key_of(split(point)[0]), key_of(point).rpartition("/")[0]})


def _taken_apart(found: Any, what: str) -> str:
    """The text with each token as one character, without slashes at its ends, and without ``devices/``."""
    if not isinstance(found, str) or not 0 < len(found) <= MAX_POINT:
        raise ValueError(f"{what} is a printable text of 1 to {MAX_POINT} characters")
    for character in found:
        if unicodedata.category(character) in _INVISIBLE or _BLANK.match(character):
            told = f"U+{ord(character):04X} cannot be seen; leave it out"
            raise ValueError(f"{what} is a printable text of 1 to {MAX_POINT} characters: {told}")
    path = found.replace(SLASH, _SLASH).replace(STAR, _STAR).strip("/")
    return path.removeprefix(f"{_FIRST}/")


def _put_together(path: str) -> str:
    return path.replace(_SLASH, SLASH).replace(_STAR, STAR)


def _segments(path: str, what: str, found: str) -> list[str]:
    segments = path.split("/")
    wrong = ""
    if "" in segments:
        wrong = "it has an empty segment (a slash too many)"
    elif "." in segments or ".." in segments:
        wrong = "it has a segment . or .."
    elif any(segment != segment.strip() for segment in segments):
        wrong = "it has a segment with white space at its ends"
    elif any(_SLASH in segment for segment in segments[:-1]):
        wrong = f"{SLASH} stands for a slash in the name of a point, and not in that of a device"
    elif not all(map(fits_a_topic, segments[:-1])):
        wrong = "the path of a device is sent as a topic, which has the characters of ISO-8859-1 only"
    elif _folded(segments[0]) == _FIRST:
        wrong = f"platforms differ in how they read {segments[0]}/ at its beginning; leave it out"
    if wrong:
        raise ValueError(f"{_no_full_path(what, found)}: {wrong}")
    return segments


def _no_full_path(what: str, found: str) -> str:
    return f"{what} is a full path such as campus/building/ahu1/CoolingSetpoint, not {found!r}"


def _folded_once(path: str) -> str:
    flat = path.replace(SLASH, "/").replace(STAR, "*").strip("/")
    return (flat.lower() if flat.isascii() else _folded(flat)).removeprefix(f"{_FIRST}/")


def _folded(text: str) -> str:
    """Unicode's compatibility caseless form (D146): what looks the same is the same."""
    text = unicodedata.normalize("NFD", text)
    for _ in range(2):
        text = unicodedata.normalize("NFKD", text.casefold())
    return text
