"""``plugin.path``: folders of distributions that were dropped in, beside those that are installed.

Each entry of such a folder is a distribution: a pure Python wheel (``acme-1.0-py3-none-any.whl``), or a
folder with its modules and its ``*.dist-info``, as ``pip install --target PATH/acme acme`` makes it. They
are added behind everything that is installed, and never replace it. A process has one set of modules, so
two distributions cannot contain the same one.
"""

from __future__ import annotations

import importlib
import os
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from tieline.api import ConfigError, ConfigProblem

_NO_MODULES = {"bin", "__pycache__"}


def activate(setting: str, where: str) -> list[Path]:
    """Make the distributions in these folders (separated by commas) importable; return what was added.

    Called before the first plugin is looked for. Raises ``ConfigError`` with every problem.
    """
    problems: list[str] = []
    known: dict[str, Path] = {}
    for path in _distributions(setting, problems):
        for module in sorted(_modules(path)):
            other = known.setdefault(module, path)
            if other != path:
                problems.append(f"{path} and {other} both bring the module {module!r}; remove one of them")
    if problems:
        raise ConfigError([ConfigProblem(where, "plugin.path", problem) for problem in problems])
    added = [path for path in dict.fromkeys(known.values()) if str(path) not in sys.path]
    sys.path.extend(map(str, added))
    importlib.invalidate_caches()
    return added


def _distributions(setting: str, problems: list[str]) -> Iterable[Path]:
    for folder in (
        Path(os.path.expanduser(part.strip())).absolute() for part in setting.split(",") if part.strip()
    ):
        if not folder.is_dir():
            problems.append(f"{folder} is not a folder")
            continue
        for path in sorted(folder.iterdir()):
            if path.suffix == ".whl" or (path.is_dir() and not path.name.startswith(".")):
                if _is_distribution(path):
                    yield path
                else:
                    problems.append(
                        f"{path} is not a distribution: it has no *.dist-info (pip install --target {path} "
                        "NAME makes one)"
                    )


def _is_distribution(path: Path) -> bool:
    return any(name.endswith(".dist-info") for name in _top(path))


def _modules(path: Path) -> set[str]:
    names = {name.removesuffix(".py") for name in _top(path) if not name.endswith((".dist-info", ".data"))}
    return {name for name in names if name.isidentifier()} - _NO_MODULES


def _top(path: Path) -> set[str]:
    """Return the top-level names of a distribution; an invalid wheel has none."""
    if path.is_dir():
        return {entry.name for entry in path.iterdir()}
    try:
        with zipfile.ZipFile(path) as wheel:
            return {name.partition("/")[0] for name in wheel.namelist()}
    except (OSError, zipfile.BadZipFile):
        return set()
