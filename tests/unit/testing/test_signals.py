"""Processes that tests start have default signals, also if the tests run under ``nohup``."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tieline.testing.signals import SIGNALS, with_default_signals

_SHOW = "import signal; print([int(signal.getsignal(n)) for n in (1, 3, 15)], signal.getsignal(2))"


def output_of(command):
    """What a command prints if its parent ignores every signal that ``nohup`` or a shell may ignore."""
    ignore = "trap '' INT HUP TERM QUIT; exec \"$@\""
    shell = ["sh", "-c", ignore, "sh", *command]
    return subprocess.run(shell, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_a_child_inherits_ignored_signals_unless_they_are_reset():
    assert output_of([sys.executable, "-c", _SHOW]) == "[1, 1, 1] 1"
    assert output_of(with_default_signals([sys.executable, "-c", _SHOW])).startswith("[0, 0, 0] <built-in")


def test_the_command_keeps_the_process_id():
    command = with_default_signals([sys.executable, "-c", "import os; print(os.getpid())"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.communicate(timeout=60)[0].strip() == str(process.pid)


def test_a_process_keeps_surviving_what_it_ignored_and_its_children_do_not_ignore_it():
    program = (
        "import signal, subprocess, sys\n"
        "from tieline.testing.signals import keep_ignored_signals_from_children\n"
        "keep_ignored_signals_from_children()\n"
        "signal.raise_signal(signal.SIGHUP)\n"
        f"subprocess.run([sys.executable, '-c', {_SHOW!r}], check=True)\n"
    )
    assert output_of([sys.executable, "-c", program]).startswith("[0, 0, 0] <built-in")


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_no_signal_is_ignored_in_these_tests(number):
    assert signal.getsignal(number) is not signal.SIG_IGN
