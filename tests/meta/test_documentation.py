"""Links of the documents resolve, every page is in the site, and what the documents name exists."""

import re
import unicodedata
from pathlib import Path

import pytest
import yaml
from docs_generator import program, repository, settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FOLDERS = ("bench", "changes", "docker", "examples", "monitoring", "plugins", "schemas")
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *PAGES,
    *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.md"))),
]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))


def of_document(path):
    return str(path.relative_to(ROOT))


def anchors(path):
    """What a link can name in a file: headings and settings of a page, tests of a module."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        return set(re.findall(r"^(?:def|class) (\w+)", text, re.MULTILINE))
    text = re.sub(r"^```.*?^```", "", program.insert(settings.insert(text)), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    named = {match[1] for heading in headings if (match := re.search(r"\{ #(\S+) \}", heading))}
    return named | {slug(heading) for heading in headings}


def slug(heading):
    """The anchor that Markdown gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("\\", "")
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


@pytest.mark.parametrize("document", DOCUMENTS, ids=of_document)
def test_every_link_leads_to_a_file_and_an_anchor_that_exist(document):
    broken = []
    for target, anchor in repository.links(document.read_text("utf-8")):
        there = document.parent / target if target else document
        if not there.exists() or (anchor and there.is_file() and anchor not in anchors(there)):
            broken.append(f"{target}#{anchor}" if anchor else target)
    assert broken == []


def in_nav(nav):
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from in_nav(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_navigation_of_the_site_once():
    entries = list(in_nav(SITE["nav"]))
    pages = {path.relative_to(DOCS).as_posix() for path in PAGES} | set(repository.PAGES.values())
    hidden = {line.strip("/") for line in SITE["not_in_nav"].split()}
    assert sorted(entries) == sorted(pages - hidden)


@pytest.mark.parametrize("source", repository.PAGES)
def test_a_page_at_the_top_of_the_repository_exists(source):
    assert (ROOT / source).is_file()


def test_links_of_a_page_lead_to_the_copies_of_the_files_in_the_site():
    page = DOCS / "explanation" / "guarantees.md"
    files = repository.linked_files([page])
    module = next(path for path in files if path.suffix == ".py")
    target = f"../../{module.relative_to(ROOT).as_posix()}"
    text = f"[x]({target}#test_a) [y](identity.md) [z](https://volttron.org)\n```\n[x]({target})\n```\n"
    copy = f"../{files[module]}"
    assert repository.relinked(text, page, "explanation/guarantees.md", files) == text.replace(
        f"({target}#", f"({copy}#"
    )


def test_the_copy_of_a_test_module_has_a_heading_for_each_test():
    here = Path(__file__)
    copy = repository.page_of(here, {here: "source/x.md"})
    names = re.findall(r"^def (test_\w+)", here.read_text("utf-8"), re.MULTILINE)
    assert re.findall(r"^## (\w+) \{ #", copy, re.MULTILINE) == names
    code = "".join(re.findall(r"^````py\n(.*?)^````$", copy, re.MULTILINE | re.DOTALL))
    assert code.split() == here.read_text("utf-8").split()


def test_every_function_that_the_architecture_names_is_in_the_file_that_it_links():
    links = re.findall(r"\[([^\]]*)\]\(([^)#\s]+)[^)]*\)", (ROOT / "ARCHITECTURE.md").read_text("utf-8"))
    named = [(text.strip("`"), target) for text, target in links if re.fullmatch(r"`[A-Za-z_.]+`", text)]
    named = [(name, target) for name, target in named if not name.endswith(".py")]
    assert len(named) >= 15
    missing = []
    for name, target in named:
        code = (ROOT / target).read_text("utf-8")
        missing += [
            (name, target) for part in name.split(".") if not re.search(rf"(def|class) {part}\b", code)
        ]
    assert missing == []


def test_every_promise_names_its_tests():
    text = (DOCS / "explanation" / "guarantees.md").read_text("utf-8")
    promises = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert len(promises) > 40
    without = [
        promise.partition("\n")[0]
        for promise in promises
        if not re.search(r"^- \*\*Tests:\*\*.*\]\(\.\./\.\./(tests|plugins)/", promise, re.MULTILINE)
    ]
    assert without == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=of_document)
def test_a_test_that_a_document_names_exists(document):
    named = set(re.findall(r"`(test_\w+)`", document.read_text("utf-8")))
    tests = [path for root in ("tests", "plugins") for path in (ROOT / root).rglob("test_*.py")]
    code = "".join(path.read_text("utf-8") for path in tests) if named else ""
    assert {name for name in named if f"def {name}(" not in code} == set()
