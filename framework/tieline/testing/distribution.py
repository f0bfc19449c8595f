"""A distribution for one test: entry points without installing anything.

    with distribution(tmp_path, "my-plugin", {"tieline.sources": {"mine": "my_plugin:MySource"}}):
        …

Yields when stevedore finds them; afterwards they are gone again.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


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
    info = root / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "utf-8")
    lines = []
    for group, entries in entry_points.items():
        lines += [f"[{group}]", *(f"{key} = {target}" for key, target in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines), "utf-8")
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
