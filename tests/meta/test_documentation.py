"""What the documents name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")]
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)[^)]*\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_that_is_there(document):
    targets = [target for _, target in LINK.findall(document.read_text()) if "://" not in target]
    assert [t for t in targets if not (document.parent / t).exists()] == []


def test_every_function_that_the_architecture_names_is_in_the_file_that_it_links():
    links = LINK.findall((ROOT / "ARCHITECTURE.md").read_text())
    named = [(text.strip("`"), target) for text, target in links if re.fullmatch(r"`[A-Za-z_.]+`", text)]
    named = [(name, target) for name, target in named if not name.endswith(".py")]
    assert len(named) >= 15
    missing = []
    for name, target in named:
        code = (ROOT / target).read_text()
        missing += [
            (name, target) for part in name.split(".") if not re.search(rf"(def|class) {part}\b", code)
        ]
    assert missing == []
