"""docs/how-to/commands.md and its examples: they run."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tieline_connectors.command.cli.wait import STATUS
from tieline_connectors.command.model.command import Defaults, is_signed_by
from tieline_connectors.command.model.parsing import from_value

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "how-to" / "commands.md").read_text("utf-8")


@pytest.mark.slow
def test_the_example_worker_with_its_connectors_has_no_problems():
    files = ["command-worker.yaml", "commands.yaml", "command-history.yaml"]
    command = [sys.executable, "-m", "tieline.cli.main", "run", "--check", *files]
    ended = subprocess.run(command, cwd=ROOT / "examples", capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "2 connector(s) checked, no problems\n"), ended.stderr


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"topic": "commands", "platform": "campus"},
        {"topic": "c"},
        {"dry_run": True, "expires_at": 1_800_000_000_000_000},
        {"reason": "Größe", "tolerance": 0.5},
    ],
)
def test_the_page_signs_as_the_sink_does(change):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    there: dict[str, Any] = {}
    exec(example, there)
    command = {
        "command_id": "c1",
        "issuer": "operator",
        "issued_at": 1_800_000_000_000_000,
        "action": "SET",
        "writes": [{"point": "campus/b1/ahu1/Fan", "value": True}],
        **change,
    }
    key = b"0123456789abcdef"
    signed = from_value(command | {"signature": there["sign"](command, key)}, Defaults())
    assert is_signed_by(signed, key)


def test_the_page_lists_each_exit_status():
    table = PAGE.partition("| Exit status of")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| (\d+) \| (.*?) \|$", table, re.MULTILINE))
    wrong = [s for s, status in STATUS.items() if s != "NO_RESULT" and s not in rows.get(str(status), "")]
    assert wrong == []
    assert "no result in time" in rows[str(STATUS["NO_RESULT"])]
