"""What is committed shows nothing of the machine it was written on, and holds no key."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Put together here, so that this file does not hold what it looks for.
HOSTS = ("pypi" + ".org", "pythonhosted" + ".org", "repo.maven" + ".apache.org", "registry.npmjs" + ".org")
TRACES = {
    # /home/volttron is the home of the platform's user, in examples.
    "a path of a developer's machine": (
        r"(?<![\w.$}\])-])/(?:(?:root|home(?!/volttron/)|Users)/[\w.-]+|work)/"
    ),
    "a package index": "|".join(map(re.escape, HOSTS)),
    "a private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY" + "-----",
}


def committed():
    """The files that git follows, as they stand in the working tree."""
    try:
        names = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git, or no clone: what is committed is not known")
    paths = [ROOT / name for name in names.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def traces(text):
    """Return what a text reveals, as ``(kind, words)``."""
    return [(what, match[0]) for what, pattern in TRACES.items() for match in re.finditer(pattern, text)]


def test_no_committed_file_shows_a_developers_machine_or_a_package_index_or_a_private_key():
    files = committed()
    assert ROOT / "setup.cfg" in files
    found = [
        (str(path.relative_to(ROOT)), *trace)
        for path in files
        if b"\0" not in (content := path.read_bytes())
        for trace in traces(content.decode("utf-8", "replace"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('open("/ho' + 'me/ann/tieline/x")', "a path of a developer's machine"),
        ("see /ro" + "ot/.cache/x", "a path of a developer's machine"),
        ("cd /wo" + "rk/main", "a path of a developer's machine"),
        ("--index-url https://" + HOSTS[0] + "/simple", "a package index"),
        ("-----BEGIN RSA PRIVATE" + " KEY-----", "a private key"),
        ("-----BEGIN PRIVATE" + " KEY-----", "a private key"),
    ],
)
def test_a_trace_is_found(text, what):
    assert [found for found, _ in traces(text)] == [what]


@pytest.mark.parametrize(
    "text",
    [
        "~/.volttron/keystore",
        "/home/volttron/.volttron/x",
        "$HOME/root/x",
        "docs/work/x",
        "https://site/home/page/",
        "a home/work/",
    ],
)
def test_harmless_text_is_not_reported_as_a_trace(text):
    assert traces(text) == []
