"""The worker of ``tieline dev``: a process of its own for each version of the author's file.

Started as ``python -m tieline.cli.developing.child FILE CLASS WORKER CONNECTOR PIPE``. Its log is JSON on
standard error. A line that begins with ``AUTHOR`` is for the author as it is; one that begins with
``FILES`` has the local files that were imported. ``PIPE`` is a file descriptor that nothing is written to:
its end is the end of the command, also if that was killed.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from tieline.api import StartupError
from tieline.cli.commands.run import run
from tieline.cli.developing.author_file import AuthorFile
from tieline.cli.developing.watched_files import Version, local_modules, version_of

AUTHOR = "author: "
FILES = "files: "
NEXT_LINE = " \\ "
_LOOK = 0.5  # seconds between two looks at what was imported later
_STOP_TIMEOUT = 10.0


def main() -> None:
    """Run one worker until SIGTERM, or until the command has ended."""
    file, name, worker, connector, pipe = sys.argv[1:6]
    author = AuthorFile(Path(file))
    imported = _ImportedFiles()
    try:
        author.find(name)
        imported.report()
        threading.Thread(target=_watch, args=(int(pipe), imported), daemon=True).start()
        author.explain_failures(name, _report)
        run(Path(worker), [Path(connector)])
    except StartupError as error:
        imported.report(error)
        _report(
            re.sub(rf"{re.escape(connector)}( \(.*?\))?: ", "", str(error))
        )  # a file that no author knows
        sys.exit(2)


class _ImportedFiles:
    """Reports the local files that were imported, whenever there are more of them."""

    def __init__(self) -> None:
        self._versions: dict[Path, Version] = {}

    def report(self, error: BaseException | None = None) -> None:
        """Report all files if some are new. ``error``: what an import raised."""
        new = local_modules(error) - self._versions.keys()
        versions = {path: version for path in new if (version := version_of(path)) is not None}
        if versions:
            self._versions |= versions
            text = json.dumps([[str(path), *version] for path, version in self._versions.items()])
            print(FILES + text, file=sys.stderr, flush=True)


def _watch(pipe: int, imported: _ImportedFiles) -> None:
    """Report what is imported later; stop the worker when the other end of the pipe is closed."""
    os.set_inheritable(pipe, False)  # a process that the author's code starts must not keep it
    with suppress(BrokenPipeError):  # the reader of standard error has ended, and so has the command
        while not select.select([pipe], [], [], _LOOK)[0]:
            imported.report()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_STOP_TIMEOUT)
    os._exit(1)


def _report(text: str) -> None:
    print(AUTHOR + text.replace("\n", NEXT_LINE), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
