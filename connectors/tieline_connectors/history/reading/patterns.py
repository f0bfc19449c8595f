"""Finds the texts that a regular expression matches, within a time limit.

Some expressions take years for a short text, and Python's ``re`` cannot be interrupted. Therefore a process
of its own runs the expression, and ends with its time limit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

_MAX_LETTERS = 1000

_SEARCH = (
    "import json, re, sys\n"
    "pattern, texts = json.load(sys.stdin)\n"
    "search = re.compile(pattern).search\n"
    "json.dump([number for number, text in enumerate(texts) if search(text)], sys.stdout)\n"
)


def matching(pattern: str, texts: Sequence[str], seconds: float) -> list[str]:
    """Return the texts of which a part matches.

    Raises ``TimeoutError`` after ``seconds``, and ``ValueError`` if the pattern is not an expression.
    """
    if len(pattern) > _MAX_LETTERS:
        raise ValueError(f"the pattern is longer than {_MAX_LETTERS} letters")
    if not texts:
        return []
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _SEARCH],
            input=json.dumps([pattern, texts]).encode(),
            capture_output=True,
            timeout=max(0.0, seconds),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"the pattern {pattern!r} takes too long") from None
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise ValueError(f"the pattern {pattern!r} is not a regular expression: {reason}")
    return [texts[number] for number in json.loads(done.stdout)]
