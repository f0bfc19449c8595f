"""``tieline new connector``: what it makes works at once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tieline.api import StartupError
from tieline.cli.commands.new import new


def make(*words):
    ended = CliRunner().invoke(new, ["connector", *map(str, words)])
    if isinstance(ended.exception, StartupError):
        raise ended.exception
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_a_name_with_the_templates_own_in_it_is_a_name(tmp_path):
    make("acme-meter", "--source", "--folder", tmp_path / "made")
    assert (tmp_path / "made" / "src" / "tieline_acme_meter" / "source.py").exists()
    assert (
        "acme-meter = tieline_acme_meter.source:AcmeMeterSource"
        in (tmp_path / "made" / "setup.cfg").read_text()
    )


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--source"], ["--sink"], ["--source", "--http"], ["--sink", "--http"]])
def test_its_tests_are_green_at_once(words, tmp_path):
    folder, kind = tmp_path / "made", words[0].removeprefix("--")
    printed = make("my-meter", *words, "--folder", folder)
    assert f"is a {kind} that works" in printed
    text = "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert "acme" not in text.lower()
    assert f"my-meter = tieline_my_meter.{kind}:MyMeter{kind.capitalize()}" in text
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stdout
    assert int(ended.stdout.rpartition(" passed")[0].split()[-1]) > 25
    assert "not tested" not in ended.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["meter"], "give either --source or --sink"),
        (["meter", "--source", "--sink"], "give either --source or --sink"),
        (["My Meter", "--sink"], "a name has lower case letters"),
        (["../meter", "--sink"], "a name has lower case letters"),
    ],
)
def test_what_cannot_be_created_is_reported(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StartupError, match=message):
        make(*words)
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_not_overwritten(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(StartupError, match="not empty"):
        make("meter", "--sink", "--folder", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
