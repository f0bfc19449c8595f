"""What a task may leave behind: threads, open files, and changed attributes of its classes."""

from __future__ import annotations

import gc
import locale
import logging
import os
import socket
import ssl
import stat
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple


class Resources(NamedTuple):
    """The threads and open files of this process."""

    threads: frozenset[threading.Thread]
    files: frozenset[tuple[int, str]]

    def __sub__(self, before: Resources) -> list[str]:
        """Describe what is here and was not there before."""
        threads = [f"the thread {thread.name!r}" for thread in self.threads - before.threads]
        return sorted(threads + [f"the open file {name}" for _, name in self.files - before.files])


def resources() -> Resources:
    """Return what is open now."""
    gc.collect()
    return Resources(frozenset(t for t in threading.enumerate() if t.is_alive()), frozenset(_open_files()))


def left_since(before: Resources, seconds: float) -> list[str]:
    """Describe what was opened since and is still open after ``seconds``; what closes earlier is ignored."""
    deadline = time.monotonic() + seconds
    while left := resources() - before:
        if time.monotonic() >= deadline:
            return left
        time.sleep(0.02)
    return []


def shared_state(kinds: Iterable[type]) -> Mapping[str, str]:
    """Return a fingerprint of what all tasks of these classes share, except code and the framework's own.

    That is the attributes of the classes, and the variables of their modules. A map in a module may be a
    cache: only its replacement counts. A module of tests may hold the external system, and is left out.
    """
    owners = [owner for kind in kinds for owner in kind.__mro__ if not _is_foreign(owner.__module__)]
    values = {
        f"{owner.__name__}.{name}": _fingerprint(value)
        for owner in owners
        for name, value in vars(owner).items()
        if not _is_code(name, value)
    }
    for module in {owner.__module__ for owner in owners}:
        if not module.rpartition(".")[2].startswith(("test_", "conftest")) and module in sys.modules:
            values |= {
                f"{module}.{name}": str(id(value)) if isinstance(value, dict) else _fingerprint(value)
                for name, value in vars(sys.modules[module]).items()
                if not _is_code(name, value)
            }
    return values


def process_state() -> Mapping[str, str]:
    """Return what belongs to the whole process, as text, by a name for people."""
    root = logging.getLogger()
    values = {
        "the working folder": os.getcwd(),
        "socket.setdefaulttimeout": str(socket.getdefaulttimeout()),
        "the default context of TLS": repr(getattr(ssl, "_create_default_https_context")),  # noqa: B009 - private
        "the locale": locale.setlocale(locale.LC_ALL),
        "the level of the root logger": str(root.level),
        "the handlers of the root logger": repr(root.handlers),
        "logging.disable": str(root.manager.disable),
        "sys.excepthook": repr(sys.excepthook),
        "threading.excepthook": repr(threading.excepthook),
        "sys.stdout or sys.stderr": f"{id(sys.stdout)} {id(sys.stderr)}",
    }
    variables = {f"the environment variable {name}": value for name, value in os.environ.items()}
    return {**values, **variables}


def _is_foreign(module: str) -> bool:
    return module.partition(".")[0] in ("tieline", "builtins", "abc", "typing")


def _is_code(name: str, value: Any) -> bool:
    if name.startswith("__") or name == "_abc_impl" or isinstance(value, (type, ModuleType)):
        return True
    return callable(value) or hasattr(type(value), "__get__")


def _fingerprint(value: Any) -> str:
    is_set = value.is_set() if isinstance(value, threading.Event) else ""
    return f"{id(value)} {is_set} {value!r}"


def _open_files() -> Iterable[tuple[int, str]]:
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        try:
            status = os.fstat(int(name))
        except OSError:
            continue  # the listing's own
        yield int(name), _name_of(f"{folder}/{name}", status)


def _name_of(link: str, status: os.stat_result) -> str:
    try:
        return os.readlink(link)
    except OSError:
        kind = "socket" if stat.S_ISSOCK(status.st_mode) else "file"
        return f"{kind} {status.st_dev}:{status.st_ino}"
