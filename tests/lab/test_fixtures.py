"""The fixtures and reports of tests/conftest.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent.parent / "conftest.py"
TESTS = """
import os, pytest

def test_a_server_is_requested(mongo_uri):
    assert mongo_uri == "mongodb://given"

def test_the_environment_is_clean():
    assert "TIELINE_WORKER" not in os.environ

def test_something_is_missing():
    pytest.skip("no cat")
"""


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [([], "2 passed, 1 skipped"), (["-m", "not kafka and not mongo"], "1 passed, 1 skipped, 1 deselected")],
)
def test_servers_mark_their_tests_and_skips_are_reported_and_settings_do_not_leak(
    tmp_path, arguments, outcome
):
    folder = tmp_path / "tests" / "unit"
    folder.mkdir(parents=True)
    (tmp_path / "tests" / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  kafka\n  mongo\n  volttron\n")
    env = {**os.environ, "TIELINE_TEST_MONGO_URI": "mongodb://given", "TIELINE_WORKER": "x"}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = (
        "1"  # importing plugins that the test does not need takes most of the time
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    run = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert outcome in run.stdout, run.stdout + run.stderr
    assert "= skipped: 1 =" in run.stdout
    assert "1  no cat" in run.stdout
    assert "  tests/unit" in run.stdout
