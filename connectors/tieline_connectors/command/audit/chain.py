"""The audit log's chain: each line names the one before it, so that nothing can be taken out; pure.

A line is canonical JSON: ``{"at":…,"event":{…},"hash":"…","prev":"…","seq":…}``. ``hash`` is BLAKE2b-256
of ``prev`` and of the line without its ``hash``. `verify` finds what was changed, removed, added or put
in another order; a head (the last line's number and hash, kept elsewhere) shows that the end was cut off.
Whoever may write both can write a new history: keep a copy of the head where they cannot (the log, the
results topic).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tieline_connectors.command.model.command import canonical

FIRST = "0" * 64
"""What the first line names as the one before it."""

CONTINUED = "CONTINUED"
"""The state of the event on the first line of a file that continues another."""

MAX_LINE = 4 * 1024 * 1024
_KEYS = {"at", "event", "hash", "prev", "seq"}


class Head(NamedTuple):
    """The last line of a log: its number, from 1, and its hash. An empty log has ``Head()``."""

    seq: int = 0
    hash: str = FIRST

    def to_line(self) -> bytes:
        """As it stands in a head file."""
        return (canonical(self._asdict()) + "\n").encode("ascii")

    @staticmethod
    def parse(line: bytes) -> Head:
        """From a head file. Raises ``ValueError``."""
        found = json.loads(line)
        if not isinstance(found, dict) or found.keys() != {"seq", "hash"}:
            raise ValueError("this is no head of an audit log")
        if type(found["seq"]) is not int or not isinstance(found["hash"], str):
            raise ValueError("this is no head of an audit log")
        return Head(**found)


class Broken(NamedTuple):
    """The first place where a log is not what it was; ``line`` counts from 1."""

    line: int
    sentence: str


def next_line(previous: Head, event: Mapping[str, Any], at: int) -> tuple[bytes, Head]:
    """The line after ``previous``, with its line end, and the new head. ``at``: microseconds, UTC.

    ``event`` is plain JSON data. Raises ``ValueError`` on NaN and the infinities.
    """
    body = {"at": at, "event": event, "prev": previous.hash, "seq": previous.seq + 1}
    hashed = _hash(body)
    return (canonical({**body, "hash": hashed}) + "\n").encode("ascii"), Head(previous.seq + 1, hashed)


def head_of(line: bytes) -> Head:
    """The head that this line makes, if it is whole. Raises ``ValueError``."""
    found = _parsed(line)
    return Head(found["seq"], found["hash"])


def continued(previous: Head, why: str, at: int) -> tuple[bytes, Head]:
    """The first line of a file that continues the chain of another, which is not at its path any more."""
    return next_line(previous, {"state": CONTINUED, "lines_before": previous.seq, "why": why}, at)


def verify(lines: Iterable[bytes], head: Head | None = None) -> Broken | None:
    """The first broken place, or none: every line is as it was written, and none is missing.

    The first line is number 1, or says that it continues another file: then what is before it is in that
    one. Several files are verified as one by giving their lines in order. ``head``: what the log's head is
    known to have been, at some time; none: the end is not checked.
    """
    last = Head()
    seen = head is None or head == last
    number = 0
    for number, line in enumerate(lines, start=1):
        try:
            found = _parsed(line)
        except ValueError as error:
            return Broken(number, str(error))
        if number == 1 and found["seq"] > 1 and _continues(found):
            last = Head(found["seq"] - 1, found["prev"])
            if head is not None and head.seq < last.seq:
                told = (
                    f"it continues another file from line {found['seq']}, and the head names line {head.seq}"
                )
                return Broken(number, f"{told}; give that file before it")
            if head is not None and head.seq == last.seq:
                if head != last:
                    return Broken(number, "it does not continue the file whose head this is")
                seen = True
        if found["seq"] != last.seq + 1 or found["prev"] != last.hash:
            return Broken(number, f"it does not follow line {last.seq}: lines are missing, added or moved")
        last = Head(found["seq"], found["hash"])
        if head is not None and last.seq == head.seq:
            if last != head:
                return Broken(
                    number, "it is another line than the one that the head names: history was rewritten"
                )
            seen = True
    if not seen and head is not None:
        return Broken(
            number + 1, f"the end is missing: the head names line {head.seq}, the log has {last.seq}"
        )
    return None


def begins_after(line: bytes) -> Head:
    """The head of the file that this first line continues; ``Head()`` where it continues none.

    Raises ``ValueError``.
    """
    found = _parsed(line)
    return Head(found["seq"] - 1, found["prev"])


def _continues(line: Mapping[str, Any]) -> bool:
    return isinstance(line["event"], dict) and line["event"].get("state") == CONTINUED


def _parsed(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE or not line.endswith(b"\n"):
        raise ValueError("it is not a whole line")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(found, dict) or found.keys() != _KEYS or type(found["seq"]) is not int:
        raise ValueError("it is no line of an audit log")
    hashed = found.pop("hash")
    try:
        again, whole = _hash(found), canonical({**found, "hash": hashed})
    except (ValueError, RecursionError):
        raise ValueError("it was changed: it is not as it was written") from None
    if hashed != again or whole.encode("ascii") != line[:-1]:
        raise ValueError("it was changed: its hash is not that of its content")
    return {**found, "hash": hashed}


def _hash(body: Mapping[str, Any]) -> str:
    return hashlib.blake2b(f"{body['prev']}{canonical(body)}".encode("ascii"), digest_size=32).hexdigest()
