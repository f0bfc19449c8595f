"""What somebody wants to send: lines of JSON, or the old message file; each with the place it stands at."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tieline.api import parse_json

MAX_BYTES = 256 << 20
"""Of all that is checked together before the first of it is sent."""
MAX_LINE = 16 << 20

_FIELDS = ("sender", "topic", "value", "description")
_LISTS = (b"message_list", b"device_point_list")
_BEGINS = re.compile(rb'\s*\{\s*"(message_list|device_point_list|kafka_topic)"\s*:')
_SPACE = re.compile(r"[ \t\r\n]*")


class Message(NamedTuple):
    """A value, how it is written, and where it stands."""

    where: str
    value: Any
    text: bytes


class InvalidLine(NamedTuple):
    """What cannot be sent, and where it stands."""

    where: str
    message: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.where}: {self.message}"


def messages(name: str, data: bytes) -> Iterator[Message | InvalidLine]:
    """All of a file: a message a line, or the old ``{"message_list": [...]}``."""
    prefix = f"{name}: " if name else ""
    if _is_old_file(data):
        yield from _listed(prefix, data)
        return
    for number, line in enumerate(data.split(b"\n"), start=1):
        found = message(f"{prefix}line {number}", line)
        if found is not None:
            yield found


def message(where: str, line: bytes) -> Message | InvalidLine | None:
    """One line; none where it is empty."""
    text = line.strip()
    if not text:
        return None
    try:
        return Message(where, parse_json(text), text)
    except (ValueError, RecursionError) as error:
        return InvalidLine(where, f"not JSON: {_told(error)}")


def arriving(source: int) -> Iterator[list[bytes]]:
    """Lines as they come from a file descriptor: all that there are, again and again, until its end.

    Raises ``ValueError`` at a line that is too long.
    """
    rest: list[bytes] = []
    size = 0
    while chunk := os.read(source, 1 << 16):
        first, *lines = chunk.split(b"\n")
        rest.append(first)
        size += len(first)
        if size > MAX_LINE:
            raise ValueError(f"a line is longer than {MAX_LINE} bytes")
        if lines:
            yield [b"".join(rest), *lines[:-1]]
            rest, size = [lines[-1]], len(lines[-1])
    if size:
        yield [b"".join(rest)]


def _is_old_file(data: bytes) -> bool:
    """Whether it is, or is meant to be, one of the old files: it may be broken."""
    if not data.lstrip().startswith(b"{") or not any(b'"%b"' % name in data for name in _LISTS):
        return False
    try:
        whole = parse_json(data)
    except (ValueError, RecursionError):
        return _BEGINS.match(data) is not None
    return isinstance(whole, dict) and any(name.decode() in whole for name in _LISTS)


def _listed(prefix: str, data: bytes) -> Iterator[Message | InvalidLine]:
    try:
        whole = parse_json(data)
        places = list(_places(data.decode("utf-8", "surrogatepass").removeprefix("\ufeff")))
    except (ValueError, RecursionError) as error:
        yield InvalidLine(f"{prefix}{_line_of(error)}", f"not JSON: {_told(error)}")
        return
    if "message_list" not in whole:
        way_out = "commands (device_point_list) are sent with: tieline command send --file"
        yield InvalidLine(f"{prefix}line 1", f"has no message_list; {way_out}")
        return
    if not isinstance(whole["message_list"], list):
        yield InvalidLine(f"{prefix}line 1", "message_list is no list")
        return
    for item, line in zip(whole["message_list"], places, strict=True):
        where = f"{prefix}line {line}"
        wrong = _what_is_wrong(item)
        if wrong:
            yield InvalidLine(where, wrong)
        else:
            yield Message(where, item, json.dumps(item, separators=(",", ":")).encode())


def _what_is_wrong(item: Any) -> str | None:
    known = "a message is {sender, topic, value, description}"
    if not isinstance(item, dict):
        return f"is no object; {known}"
    unknown = sorted(item.keys() - set(_FIELDS))
    missing = [name for name in _FIELDS[:3] if name not in item]
    if unknown or missing:
        parts = [f"has no {', '.join(missing)}"] if missing else []
        parts += [f"has {', '.join(unknown)}"] if unknown else []
        return f"{' and '.join(parts)}; {known}"
    no_text = [n for n in ("sender", "topic", "description") if not isinstance(item.get(n, ""), str)]
    empty = [n for n in ("sender", "topic") if item[n] == ""]
    if no_text or empty:
        return "; ".join([f"{n} is no text" for n in no_text] + [f"{n} is empty" for n in empty])
    return None


def _places(text: str) -> Iterator[int]:
    """The line at which each item of the (last) message_list begins; the text is known to be JSON."""
    decoder = json.JSONDecoder()
    found: list[int] = []
    at = _past(text, 0) + 1
    while text[at := _past(text, at)] != "}":
        name, at = decoder.raw_decode(text, at)
        at = _past(text, _past(text, at) + 1)  # the colon
        if name == "message_list" and text[at] == "[":
            found = []
            at = _past(text, at + 1)
            while text[at] != "]":
                found.append(at)
                _, at = decoder.raw_decode(text, at)
                at = _past(text, at)
                at = _past(text, at + 1) if text[at] == "," else at
            at += 1
        else:
            _, at = decoder.raw_decode(text, at)
        at = _past(text, at)
        at += text[at] == ","
    line, before = 1, 0
    for place in found:
        line, before = line + text.count("\n", before, place), place
        yield line


def _past(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _told(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 (byte {error.start})"
    return str(error)


def _line_of(error: Exception) -> str:
    return f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "line 1"
