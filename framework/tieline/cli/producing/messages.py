"""Reading messages to send: lines of JSON, or an old message file, each with its place."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tieline.api import parse_json

MAX_BYTES = 256 << 20
"""The most bytes that are checked together before the first message is sent."""
MAX_LINE = 16 << 20

_FIELDS = ("sender", "topic", "value", "description")
_LISTS = (b"message_list", b"device_point_list")
_OLD_FILE = re.compile(rb'\s*\{\s*"(message_list|device_point_list|kafka_topic)"\s*:')
_SPACE = re.compile(r"[ \t\r\n]*")


class InputMessage(NamedTuple):
    """A value, its JSON text, and where it is (file and line)."""

    where: str
    value: Any
    text: bytes


class InvalidLine(NamedTuple):
    """A line that cannot be sent: where it is, and why."""

    where: str
    message: str

    def __str__(self) -> str:
        """Return place and reason in one line."""
        return f"{self.where}: {self.message}"


def messages(name: str, data: bytes) -> Iterator[InputMessage | InvalidLine]:
    """Yield the messages of a file: one per line, or those of the old ``{"message_list": [...]}``."""
    prefix = f"{name}: " if name else ""
    if _is_old_file(data):
        yield from _old_messages(prefix, data)
        return
    for number, line in enumerate(data.split(b"\n"), start=1):
        parsed = parse_line(f"{prefix}line {number}", line)
        if parsed is not None:
            yield parsed


def parse_line(where: str, line: bytes) -> InputMessage | InvalidLine | None:
    """Parse a line. Return ``None`` if it is empty."""
    text = line.strip()
    if not text:
        return None
    try:
        return InputMessage(where, parse_json(text), text)
    except (ValueError, RecursionError) as error:
        return InvalidLine(where, f"not JSON: {_describe_json_error(error)}")


def arriving_lines(descriptor: int) -> Iterator[list[bytes]]:
    """Yield the lines that arrive at a file descriptor. Raises ``ValueError`` for one that is too long."""
    rest: list[bytes] = []
    size = 0
    while chunk := os.read(descriptor, 1 << 16):
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
    """Return whether this is, or is meant to be, an old message file; it may be invalid JSON."""
    if not data.lstrip().startswith(b"{") or not any(b'"%b"' % name in data for name in _LISTS):
        return False
    try:
        whole = parse_json(data)
    except (ValueError, RecursionError):
        return _OLD_FILE.match(data) is not None
    return isinstance(whole, dict) and any(name.decode() in whole for name in _LISTS)


def _old_messages(prefix: str, data: bytes) -> Iterator[InputMessage | InvalidLine]:
    try:
        whole = parse_json(data)
        item_lines = list(_item_lines(data.decode("utf-8", "surrogatepass").removeprefix("\ufeff")))
    except (ValueError, RecursionError) as error:
        yield InvalidLine(f"{prefix}{_line_of(error)}", f"not JSON: {_describe_json_error(error)}")
        return
    if "message_list" not in whole:
        fix = "commands (device_point_list) are sent with: tieline command send --file"
        yield InvalidLine(f"{prefix}line 1", f"has no message_list; {fix}")
        return
    if not isinstance(whole["message_list"], list):
        yield InvalidLine(f"{prefix}line 1", "message_list is not a list")
        return
    for item, line in zip(whole["message_list"], item_lines, strict=True):
        where = f"{prefix}line {line}"
        problem = _problem_of(item)
        if problem:
            yield InvalidLine(where, problem)
        else:
            yield InputMessage(where, item, json.dumps(item, separators=(",", ":")).encode())


def _problem_of(item: Any) -> str | None:
    known = "a message is {sender, topic, value, description}"
    if not isinstance(item, dict):
        return f"is not an object; {known}"
    unknown = sorted(item.keys() - set(_FIELDS))
    missing = [name for name in _FIELDS[:3] if name not in item]
    if unknown or missing:
        parts = [f"has no {', '.join(missing)}"] if missing else []
        parts += [f"has {', '.join(unknown)}"] if unknown else []
        return f"{' and '.join(parts)}; {known}"
    not_text = [n for n in ("sender", "topic", "description") if not isinstance(item.get(n, ""), str)]
    empty = [n for n in ("sender", "topic") if item[n] == ""]
    if not_text or empty:
        return "; ".join([f"{n} is not a text" for n in not_text] + [f"{n} is empty" for n in empty])
    return None


def _item_lines(text: str) -> Iterator[int]:
    """Yield the line at which each item of the (last) message_list begins. The text is known to be JSON."""
    decoder = json.JSONDecoder()
    starts: list[int] = []
    index = _skip_space(text, 0) + 1
    while text[index := _skip_space(text, index)] != "}":
        name, index = decoder.raw_decode(text, index)
        index = _skip_space(text, _skip_space(text, index) + 1)  # the colon
        if name == "message_list" and text[index] == "[":
            starts = []
            index = _skip_space(text, index + 1)
            while text[index] != "]":
                starts.append(index)
                _, index = decoder.raw_decode(text, index)
                index = _skip_space(text, index)
                index = _skip_space(text, index + 1) if text[index] == "," else index
            index += 1
        else:
            _, index = decoder.raw_decode(text, index)
        index = _skip_space(text, index)
        index += text[index] == ","
    line, before = 1, 0
    for start in starts:
        line, before = line + text.count("\n", before, start), start
        yield line


def _skip_space(text: str, index: int) -> int:
    space = _SPACE.match(text, index)
    return space.end() if space else index


def _describe_json_error(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 (byte {error.start})"
    return str(error)


def _line_of(error: Exception) -> str:
    return f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "line 1"
