"""A distribution for one test: entry points without installing anything.

    with distribution(tmp_path, "my-plugin", {"tieline.sources": {"mine": "my_plugin:MySource"}}):
        …

Yields when the plugins can be found; afterwards they cannot any more.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tieline.plugins.unpackaged import write_entry_points


@contextmanager
def distribution(
    folder: Path,
    name: str,
    entry_points: Mapping[str, Mapping[str, str]],
    modules: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Put a distribution ``name`` 1.0 on ``sys.path``, written into a folder of its own below ``folder``.

    ``entry_points``: group → name → ``module:attribute``. ``modules``: module name → source text, for
    plugins that exist in this test alone.
    """
    root = folder / name
    write_entry_points(root, name, entry_points, "1.0")
    for module, text in (modules or {}).items():
        (root / f"{module}.py").write_text(text, "utf-8")
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(root))
        for module in modules or {}:
            sys.modules.pop(module, None)
