"""Entry points for a class that no installed distribution offers: for tests, and to run a single file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_entry_points(
    folder: Path, name: str, entry_points: Mapping[str, Mapping[str, str]], version: str = "0"
) -> None:
    """Write a distribution's description into ``folder``; it counts once the folder is on ``sys.path``.

    ``entry_points``: group → name → ``module:attribute``. Raises ``FileExistsError``.
    """
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata, "utf-8")
    lines = []
    for group, entries in entry_points.items():
        lines += [f"[{group}]", *(f"{key} = {target}" for key, target in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines), "utf-8")
