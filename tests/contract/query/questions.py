"""What ``tieline query`` answers, whatever stores the readings: one table for all stores.

A test of a store puts the readings with the numbers ``ORDER`` in this order. Number *n* is of the device
``campus/b1/ahu0`` if it is even, else of ``campus/b1/ahu1``, *n* seconds after 2026-01-01, and its point
``count`` has the value *n*.
"""

from __future__ import annotations

ORDER = (4, 1, 0, 9, 2, 3, 8, 5, 6, 7)

_BETWEEN = ("--since", "2026-01-01T00:00:03", "--until", "2026-01-01T00:00:06")
QUESTIONS: list[tuple[tuple[str, ...], list[int]]] = [
    ((), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
    (("--oldest",), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    (("--oldest", "--limit", "3"), [0, 1, 2]),
    (("--limit", "3"), [9, 8, 7]),
    (("--topic", "devices/campus/b1/ahu1/all"), [9, 7, 5, 3, 1]),
    (("--topic", "devices/campus/b1/ahu1"), []),
    (("--device", "campus/b1/ahu0"), [8, 6, 4, 2, 0]),
    (("--device", "campus/b1"), []),
    (("--regex", "^devices/.*/ahu0"), [8, 6, 4, 2, 0]),
    (("--regex", "ahu[12]/all$", "--oldest", "--limit", "2"), [1, 3]),
    (("--since", "2026-01-01T00:00:07Z"), [9, 8, 7]),
    (("--until", "2026-01-01T01:00:02+01:00"), [1, 0]),
    ((*_BETWEEN, "--device", "campus/b1/ahu1"), [5, 3]),
    (("--since", "1d"), []),
]
"""Arguments, and the numbers of the readings in the order of the answer."""

REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("--regex", "("), "not a regular expression"),
    (("--since", "yesterday"), "known forms"),
    (("--limit", "0"), "limit"),
]
"""Arguments that are wrong for every store, and a part of what is reported; the exit status is 2."""
