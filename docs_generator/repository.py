"""Pages for the files of the repository that the documentation links, so that the site is complete offline.

A link that leaves ``docs`` works on a forge and in an editor as it is written. On the site it leads to a copy
of the file. In a copy of a test module each test has a heading of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    "ARCHITECTURE.md": "explanation/architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages of the site that stand at the top of the repository."""

_BLOCK = re.compile(r"^(```+|~~~+).*?^\1\s*$", re.M | re.S)
_LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?(?P<after>\))")
_TEST = re.compile(r"^(?:@.*\n(?:[ )\]}].*\n|\n(?=[ )\]}]))*)*(?:def|class) (?P<name>[Tt]est\w+).*\n", re.M)
_LANGUAGES = {".cfg": "ini", ".properties": "properties", ".avsc": "json", ".sh": "bash", ".yml": "yaml"}


def links(text: str) -> list[tuple[str, str]]:
    """Return ``(target, anchor)`` of every link of a Markdown text that has no scheme."""
    blocks = _BLOCK.sub("", text)
    return [
        (link["target"], (link["anchor"] or "")[1:])
        for link in _LINK.finditer(blocks)
        if "://" not in link["target"] and not link["target"].startswith("mailto:")
    ]


def linked_files(pages: Iterable[Path]) -> dict[Path, str]:
    """Return each file outside ``docs`` that a page leads to, and its place in the site.

    Markdown that is found so is a page too, and what it links is found in turn.
    """
    found = {ROOT / source: place for source, place in PAGES.items()}
    waiting = [*pages, *found]
    while waiting:
        page = waiting.pop()
        for target, _ in links(page.read_text("utf-8")):
            path = Path(os.path.normpath(page.parent / target)) if target else page
            if path.is_relative_to(DOCS) or path in found or not path.exists() or path == ROOT:
                continue
            if (path / "README.md").exists():
                found[path] = place_of(path)
                path /= "README.md"
            found[path] = place_of(path)
            if path.suffix == ".md":
                waiting.append(path)
    return found


def place_of(path: Path) -> str:
    """Return where a file of the repository stands in the site."""
    inside = path.relative_to(ROOT).as_posix()
    if inside in PAGES:
        return PAGES[inside]
    inside = "/".join(part.lstrip(".") for part in inside.split("/"))  # MkDocs leaves out hidden files
    if path.is_dir():
        return f"source/{inside}/{'README' if (path / 'README.md').exists() else 'index'}.md"
    return f"source/{inside}{'' if path.suffix == '.md' else '.md'}"


def relinked(text: str, origin: Path, place: str, files: dict[Path, str]) -> str:
    """Return the text of ``origin`` with its links as they must be at its place in the site."""

    def change(link: re.Match[str]) -> str:
        target = link["target"]
        if not target or "://" in target or target.startswith("mailto:"):
            return link[0]
        path = Path(os.path.normpath(origin.parent / target))
        if path in files:
            there = files[path]
        elif path.is_relative_to(DOCS):
            there = path.relative_to(DOCS).as_posix()
        else:
            return link[0]
        near = os.path.relpath(there, PurePosixPath(place).parent.as_posix())
        return f"{link['before']}{near}{link['anchor'] or ''}{link['after']}"

    return outside_blocks(text, lambda part: _LINK.sub(change, part))


def outside_blocks(text: str, change: Callable[[str], str]) -> str:
    """Return the text, changed everywhere but in fenced code."""
    parts, end = [], 0
    for block in _BLOCK.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])


def page_of(path: Path, files: dict[Path, str]) -> str:
    """Return the page that shows a file or folder of the repository; it stays out of the search."""
    inside = path.relative_to(ROOT).as_posix()
    place = files[path]
    if path.suffix == ".md":
        text = relinked(path.read_text("utf-8"), path, place, files)
        return text if inside in PAGES else f"---\nsearch:\n  exclude: true\n---\n{text}"
    head = f"---\nsearch:\n  exclude: true\n---\n# {inside}\n"
    if path.is_dir():
        return head + "".join(f"- {_entry(each, place, files)}\n" for each in _listed(path))
    return head + _code(path.read_text("utf-8"), path.suffix)


def _listed(folder: Path) -> list[Path]:
    hidden = ("__pycache__", "build")
    return sorted(
        each for each in folder.iterdir() if not each.name.startswith(".") and each.name not in hidden
    )


def _entry(path: Path, place: str, files: dict[Path, str]) -> str:
    if path not in files:
        return f"`{path.name}`"
    return f"[`{path.name}`]({os.path.relpath(files[path], PurePosixPath(place).parent.as_posix())})"


def _code(text: str, suffix: str) -> str:
    """The text as code; in a module of tests each test gets a heading, which a link can name."""
    language = _LANGUAGES.get(suffix, suffix[1:])
    cuts = [(match.start(), match["name"]) for match in _TEST.finditer(text)] if suffix == ".py" else []
    starts = [0, *(start for start, _ in cuts)]
    headings = ["", *(f"## {name} {{ #{name} }}\n" for _, name in cuts)]
    ends = [*starts[1:], len(text)]
    return "\n".join(
        f"{heading}````{language}\n{text[start:end].strip()}\n````\n"
        for heading, start, end in zip(headings, starts, ends, strict=True)
        if text[start:end].strip()
    )
