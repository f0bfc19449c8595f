"""Formats in files: whether each still reads what any released version of it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tieline.registry.model.avro_schema import InvalidSchema, parse
from tieline.registry.model.compatibility import incompatibilities

LEVEL = "BACKWARD_TRANSITIVE"


class Checked(NamedTuple):
    """One format, ``OWNER/Name.avsc``: how many released versions it was held against, and what is wrong."""

    name: str
    released: int
    wrong: list[str]


def check(folder: Path) -> list[Checked]:
    """All formats of a folder against ``released/VERSION/OWNER/Name.avsc`` in it.

    A format that was released and is not there any more is wrong, too. Raises ``OSError``.
    """
    found = [_checked(folder, path) for path in sorted(folder.glob("*/*.avsc"))]
    there = {each.name for each in found}
    gone = {_name(path) for path in _released(folder, "*", "*")} - there
    told = "was released and is not there any more; what it wrote still is"
    return [*found, *(Checked(name, 1, [told]) for name in sorted(gone))]


def _checked(folder: Path, path: Path) -> Checked:
    earlier = list(_released(folder, path.parent.name, path.stem))
    try:
        new = parse("AVRO", path.read_text("utf-8"), {})
        old = [parse("AVRO", each.read_text("utf-8"), {}) for each in earlier]
        wrong = [*new.problems, *incompatibilities(LEVEL, new, old)]
    except (InvalidSchema, UnicodeDecodeError) as error:
        wrong = [str(error)]
    return Checked(_name(path), len(earlier), wrong)


def _released(folder: Path, owner: str, name: str) -> Iterator[Path]:
    def version(path: Path) -> list[tuple[bool, int, str]]:
        parts = path.parent.parent.name.split(".")
        return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]

    yield from sorted(folder.glob(f"released/*/{owner}/{name}.avsc"), key=version)


def _name(path: Path) -> str:
    return f"{path.parent.name}.{path.stem}"
