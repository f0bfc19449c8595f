"""What MkDocs calls: generated references and pages of the repository's files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs_generator import metrics, program, repository, settings

_FILES: dict[Path, str] = {}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file of the repository that a page links."""
    _FILES.clear()
    _FILES.update(repository.linked_files(sorted(repository.DOCS.rglob("*.md"))))
    for path, place in _FILES.items():
        if (path / "README.md").exists():
            continue  # its page is that of the README
        files.append(File.generated(config, place, content=repository.page_of(path, _FILES)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fill in the generated references, and lead links out of ``docs`` to their pages."""
    if page.file.generated_by:
        return markdown
    text = metrics.insert(program.insert(settings.insert(markdown)))
    return repository.relinked(text, repository.DOCS / page.file.src_uri, page.file.src_uri, _FILES)


_FETCHED = re.compile(
    r"<(?:script|img|link)\b(?![^>]*canonical)[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>"
)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Raise if a page would fetch something when it is read: the site works without a network."""
    if fetched := _FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} is not complete offline: {fetched[0]}")
    return output
