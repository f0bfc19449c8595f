"""Default signals for the processes that tests start.

A program that runs under ``nohup`` or as a background job of a script inherits SIGHUP, SIGINT or SIGQUIT as
ignored, and so do the programs that it starts. A test that sends such a signal to its worker would then wait
for an end that never comes.

Run as a plain file, ``python -I -S signals.py COMMAND…``, this module resets the signals and replaces itself
with the command. It therefore imports Python's standard library only.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT)


def with_default_signals(command: Sequence[str]) -> list[str]:
    """Return a command that resets ignored signals and then runs ``command`` under the same process id."""
    return [sys.executable, "-I", "-S", __file__, *command]


def keep_ignored_signals_from_children() -> None:
    """Let the programs that this process starts have default signals; call it in the main thread.

    A signal that this process ignores gets a handler that does nothing. The process still survives the
    signal, and a handler, unlike a signal that is ignored, is not inherited.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _ignore)


def _ignore(number: int, frame: object) -> None:
    pass


def main(command: Sequence[str]) -> None:
    """Reset the signals and become the command."""
    for number in (*SIGNALS, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.execvp(command[0], list(command))


if __name__ == "__main__":
    main(sys.argv[1:])
