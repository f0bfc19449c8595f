"""The worker of ``tieline dev``: a process of its own for each version of the author's file.

Started as ``python -m tieline.cli.developing.child FILE CLASS WORKER CONNECTOR``. Its log is JSON on
standard error; a line that begins with ``AUTHOR`` is for the author as it is.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tieline.api import StartupError
from tieline.cli.commands.run import run
from tieline.cli.developing.author_file import AuthorFile

AUTHOR = "author: "
NEXT_LINE = " \\ "


def main() -> None:
    """Run one worker until SIGTERM."""
    file, name, worker, connector = sys.argv[1:5]
    author = AuthorFile(Path(file))
    try:
        author.find(name)
        author.explain_failures(name, _report)
        run(Path(worker), [Path(connector)])
    except StartupError as error:
        _report(
            re.sub(rf"{re.escape(connector)}( \(.*?\))?: ", "", str(error))
        )  # a file that no author knows
        sys.exit(2)


def _report(text: str) -> None:
    print(AUTHOR + text.replace("\n", NEXT_LINE), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
