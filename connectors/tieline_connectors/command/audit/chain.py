"""The audit log's hash chain: each line contains the hash of the one before, so no line can be removed; pure.

A line is canonical JSON: ``{"at":…,"event":{…},"hash":"…","prev":"…","seq":…}``. ``hash`` is BLAKE2b-256
of ``prev`` and of the line without its ``hash``. `verify` finds lines that were changed, removed, added or
reordered. A head (the last line's number and hash, kept elsewhere) shows that the end was cut off. An
attacker who may write both can write a new history: keep a copy of the head where the attacker cannot write.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tieline_connectors.command.model.command import canonical

FIRST = "0" * 64
"""The hash that the first line has for its predecessor."""

CONTINUED = "CONTINUED"
"""The state of the event on the first line of a file that continues another."""

MAX_LINE = 4 * 1024 * 1024
_KEYS = {"at", "event", "hash", "prev", "seq"}


class ChainHead(NamedTuple):
    """The last line of a log: its number, from 1, and its hash. An empty log has ``ChainHead()``."""

    seq: int = 0
    hash: str = FIRST

    def to_line(self) -> bytes:
        """Return the content of a head file."""
        return (canonical(self._asdict()) + "\n").encode("ascii")

    @staticmethod
    def parse(line: bytes) -> ChainHead:
        """Return the head of a head file. Raises ``ValueError``."""
        fields = json.loads(line)
        if not isinstance(fields, dict) or fields.keys() != {"seq", "hash"}:
            raise ValueError("this is not the head of an audit log")
        if type(fields["seq"]) is not int or not isinstance(fields["hash"], str):
            raise ValueError("this is not the head of an audit log")
        return ChainHead(**fields)


class ChainBreak(NamedTuple):
    """The first line of a log that was changed, and why; ``line`` counts from 1."""

    line: int
    reason: str


def next_line(previous: ChainHead, event: Mapping[str, Any], at: int) -> tuple[bytes, ChainHead]:
    """Return the line after ``previous``, with its line end, and the new head. ``at``: microseconds, UTC.

    ``event`` is plain JSON data. Raises ``ValueError`` if it contains NaN or an infinity.
    """
    body = {"at": at, "event": event, "prev": previous.hash, "seq": previous.seq + 1}
    hashed = _hash(body)
    return (canonical({**body, "hash": hashed}) + "\n").encode("ascii"), ChainHead(previous.seq + 1, hashed)


def head_of(line: bytes) -> ChainHead:
    """Return the head after this line. Raises ``ValueError`` if the line is damaged."""
    fields = _parse_line(line)
    return ChainHead(fields["seq"], fields["hash"])


def continuation_line(previous: ChainHead, why: str, at: int) -> tuple[bytes, ChainHead]:
    """Return the first line of a file that continues the chain of one that is no longer at its path."""
    return next_line(previous, {"state": CONTINUED, "lines_before": previous.seq, "why": why}, at)


def verify(lines: Iterable[bytes], head: ChainHead | None = None) -> ChainBreak | None:
    """Return the first break of a chain; ``None``: every line is unchanged, and none is missing.

    The first line is number 1, or says that it continues another file, which has the lines before it. Pass
    the lines of several files in order to verify them together. ``head``: the log's head at some time;
    ``None``: the end is not checked.
    """
    last = ChainHead()
    seen = head is None or head == last
    number = 0
    for number, text in enumerate(lines, start=1):
        try:
            line = _parse_line(text)
            if number == 1 and line["seq"] > 1 and _is_continuation(line):
                last = ChainHead(line["seq"] - 1, line["prev"])
                seen = _check_continuation(line["seq"], last, head) or seen
            last = _follow(line, last)
            seen = _check_head(last, head) or seen
        except ValueError as error:
            return ChainBreak(number, str(error))
    if not seen and head is not None:
        reason = f"the end is missing: the head names line {head.seq}, the log has {last.seq}"
        return ChainBreak(number + 1, reason)
    return None


def _check_continuation(seq: int, last: ChainHead, head: ChainHead | None) -> bool:
    """Return whether the head is that of the previous file. Raises ``ValueError`` if it is another."""
    if head is not None and head.seq < last.seq:
        reason = f"it continues another file from line {seq}, and the head names line {head.seq}"
        raise ValueError(f"{reason}; give that file before it")
    if head is not None and head.seq == last.seq and head != last:
        raise ValueError("it does not continue the file whose head this is")
    return head == last


def _follow(line: Mapping[str, Any], last: ChainHead) -> ChainHead:
    if line["seq"] != last.seq + 1 or line["prev"] != last.hash:
        raise ValueError(f"it does not follow line {last.seq}: lines are missing, added or moved")
    return ChainHead(line["seq"], line["hash"])


def _check_head(last: ChainHead, head: ChainHead | None) -> bool:
    """Return whether the head names this line. Raises ``ValueError`` if the line is another."""
    if head is not None and last.seq == head.seq and last != head:
        raise ValueError("it is not the line that the head names: history was rewritten")
    return head == last


def preceding_head(line: bytes) -> ChainHead:
    """Return the head of the file that this first line continues; ``ChainHead()`` if it continues none.

    Raises ``ValueError``.
    """
    fields = _parse_line(line)
    return ChainHead(fields["seq"] - 1, fields["prev"])


def _is_continuation(line: Mapping[str, Any]) -> bool:
    return isinstance(line["event"], dict) and line["event"].get("state") == CONTINUED


def _parse_line(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE or not line.endswith(b"\n"):
        raise ValueError("it is not a complete line")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(fields, dict) or fields.keys() != _KEYS or type(fields["seq"]) is not int:
        raise ValueError("it is not a line of an audit log")
    hashed = fields.pop("hash")
    try:
        expected, text = _hash(fields), canonical({**fields, "hash": hashed})
    except (ValueError, RecursionError):
        raise ValueError("it was changed: it does not have the form that is written") from None
    if hashed != expected or text.encode("ascii") != line[:-1]:
        raise ValueError("it was changed: its hash is not that of its content")
    return {**fields, "hash": hashed}


def _hash(body: Mapping[str, Any]) -> str:
    return hashlib.blake2b(f"{body['prev']}{canonical(body)}".encode("ascii"), digest_size=32).hexdigest()
