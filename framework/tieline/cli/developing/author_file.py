"""The file of a connector's author: which class it holds, and where in it an error happened."""

from __future__ import annotations

import functools
import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tieline.api import (
    SinkConnector,
    SinkTask,
    SourceConnector,
    SourceTask,
    StartupError,
    TielineError,
)
from tieline.plugins.discovery import SINKS, SOURCES

_KINDS: tuple[tuple[type, str], ...] = (
    (SourceConnector, SOURCES),
    (SinkConnector, SINKS),
    (SourceTask, SOURCES),
    (SinkTask, SINKS),
)
_CALLS = ("__init__", "start", "open", "poll", "put", "flush", "pre_commit", "close", "stop")


class AuthorClass(NamedTuple):
    """A class that can run: its name in the module, and the group of its entry point."""

    name: str
    group: str


class AuthorFile:
    """A Python file, imported under its own name; inside a package under the package's.

    Raises ``StartupError`` for a file that cannot be a module.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        if not self.path.is_file():
            raise StartupError(f"{path}: no such file")
        names = [self.path.stem]
        folder = self.path.parent
        while (folder / "__init__.py").exists():
            names.insert(0, folder.name)
            folder = folder.parent
        self.folder = folder
        self.module = ".".join(names)
        if path.suffix != ".py" or not all(name.isidentifier() for name in names):
            raise StartupError(f"{path}: not the file of a Python module; rename it, such as my_source.py")
        if names[0] in sys.stdlib_module_names:
            raise StartupError(f"{path}: {names[0]} is a module of Python itself; rename the file")

    def load(self) -> Any:
        """Import the file. Raises ``StartupError`` with the author's own line if that fails."""
        sys.path.insert(0, str(self.folder))
        try:
            return importlib.import_module(self.module)
        except (Exception, SystemExit) as error:
            raise StartupError(f"{self.path.name} cannot be imported: {self.explain(error)}") from error

    def find(self, wanted: str | None) -> AuthorClass:
        """Return the class to run. Raises ``StartupError`` if there is none, or more than one."""
        module = self.load()
        defined = {
            name: kind
            for name, kind in vars(module).items()
            if isinstance(kind, type) and kind.__module__ == module.__name__
        }
        candidates: list[AuthorClass] = []
        used = {
            getattr(kind, "task_type", None) for kind in defined.values()
        }  # a connector stands for its task
        for name, kind in defined.items():
            group = next((group for base, group in _KINDS if issubclass(kind, base)), None)
            if group is not None and (kind not in used or name == wanted):
                candidates.append(AuthorClass(name, group))
        names = ", ".join(candidate.name for candidate in candidates)
        if wanted is not None:
            candidates = [candidate for candidate in candidates if candidate.name == wanted]
            if not candidates:
                raise StartupError(
                    f"{self.path.name} has no source or sink {wanted}; it has: {names or 'no class to run'}"
                )
        if not candidates:
            raise StartupError(
                f"{self.path.name} has no source and no sink: write a class of SourceTask[MyConfig] "
                "or SinkTask[MyConfig], or a connector"
            )
        if len(candidates) > 1:
            raise StartupError(f"{self.path.name} has several classes: {names}. Choose one with --class")
        return candidates[0]

    def explain(self, error: BaseException) -> str:
        """Return an error with the last line of this file that led to it."""
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, SyntaxError) and error.filename:
            return f"{Path(error.filename).name}:{error.lineno}: {error.msg}: {(error.text or '').strip()}"
        frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == self.path]
        if not frames:
            return text
        last = frames[-1]
        return f"{text}\n  {self.path.name}:{last.lineno} in {last.name}: {last.line}"

    def explain_failures(self, name: str, report: Callable[[str], None]) -> None:
        """Let each call of the task report an unexpected error with its line, and raise it as before."""
        module = sys.modules[self.module]
        kind = getattr(module, name)
        task: Any = kind if issubclass(kind, (SourceTask, SinkTask)) else kind.task_type
        for call in _CALLS:
            if hasattr(task, call):
                setattr(task, call, self._explained(getattr(task, call), report))

    def _explained(self, function: Any, report: Callable[[str], None]) -> Any:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            try:
                return function(*arguments, **named)
            except TielineError:
                raise  # the runtime's log says what it means
            except Exception as error:
                report(self.explain(error))
                raise

        return call
