"""Check that each schema in a folder still reads what every released version of it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tieline.registry.model.avro_schema import InvalidSchemaError, parse
from tieline.registry.model.compatibility import incompatibilities

LEVEL = "BACKWARD_TRANSITIVE"


class FormatCheck(NamedTuple):
    """The check of one schema, ``OWNER/Name.avsc``.

    ``released``: how many released versions it was checked against. ``problems``: empty if it reads them all.
    """

    name: str
    released: int
    problems: list[str]


def check_formats(folder: Path) -> list[FormatCheck]:
    """Check all schemas of a folder against ``released/VERSION/OWNER/Name.avsc`` in it.

    A released schema that no longer exists is a problem, too. Raises ``OSError``.
    """
    checks = [_check(folder, path) for path in sorted(folder.glob("*/*.avsc"))]
    names = {check.name for check in checks}
    removed = {_name(path) for path in _released(folder, "*", "*")} - names
    problem = "was released and no longer exists, but what it wrote does"
    return [*checks, *(FormatCheck(name, 1, [problem]) for name in sorted(removed))]


def _check(folder: Path, path: Path) -> FormatCheck:
    earlier = list(_released(folder, path.parent.name, path.stem))
    try:
        new = parse("AVRO", path.read_text("utf-8"), {})
        old = [parse("AVRO", each.read_text("utf-8"), {}) for each in earlier]
        problems = [*new.problems, *incompatibilities(LEVEL, new, old)]
    except (InvalidSchemaError, UnicodeDecodeError) as error:
        problems = [str(error)]
    return FormatCheck(_name(path), len(earlier), problems)


def _released(folder: Path, owner: str, name: str) -> Iterator[Path]:
    def version(path: Path) -> list[tuple[bool, int, str]]:
        parts = path.parent.parent.name.split(".")
        return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]

    yield from sorted(folder.glob(f"released/*/{owner}/{name}.avsc"), key=version)


def _name(path: Path) -> str:
    return f"{path.parent.name}.{path.stem}"
