"""Plants a defect into a new connector, and runs the tests that ``tieline new`` has written for it."""

from __future__ import annotations

import logging
import os
import socket

import pytest
from typer.testing import CliRunner

from tieline.cli.commands.new import new

WITHOUT = ("cacheprovider", "hypothesispytest", "xdist", "unraisableexception", "threadexception")

PLANT = """

import itertools, os, tempfile, threading, time

def planted(name):
    def plant(function):
        setattr(AcmeTask, name, function)
        return function
    return plant

_poll, _start, _stop = (getattr(AcmeTask, name, None) for name in ("poll", "start", "stop"))
_put, _flush, _record = (getattr(AcmeTask, name, None) for name in ("put", "flush", "record"))
"""


@pytest.fixture
def restored_process():
    """Undo what a planted defect changes in this process: later tests share it."""
    environment, timeout = dict(os.environ), socket.getdefaulttimeout()
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    os.environ.clear()
    os.environ.update(environment)
    socket.setdefaulttimeout(timeout)
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def run_planted(pytester, restored_process):
    """``run_planted(words, plant, caught_by, message)``: the test must fail once, with this message."""

    def run_planted(words, plant, caught_by, message):
        project = scaffold(pytester, words, plant)
        result = run(pytester, project, "-k", caught_by)
        assert result.parseoutcomes().get("failed") == 1, "\n".join(result.outlines[-30:])
        assert message in " ".join(" ".join(result.outlines).replace("E  ", "").split())

    return run_planted


def scaffold(pytester, words, plant):
    project = pytester.path / "made"
    ended = CliRunner().invoke(
        new, ["connector", "acme", *(f"--{word}" for word in words), "--folder", str(project)]
    )
    assert ended.exit_code == 0, ended.output
    module = project / "src" / "tieline_acme" / f"{words[0]}.py"
    module.write_text(module.read_text() + PLANT + plant)
    pytester.syspathinsert(project / "src")
    return project


def run(pytester, project, *words):
    return pytester.runpytest_inprocess(
        "-q", "-x", *(word for plugin in WITHOUT for word in ("-p", f"no:{plugin}")), *words, project
    )
