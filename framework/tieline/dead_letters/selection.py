"""Which letters a command is about: by cause, time, connector, position or id. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from tieline.dead_letters.letter import DeadLetter

_PLACE = re.compile(r"(\d{1,10})@(\d{1,19})")
_CAUSE = re.compile(r"[0-9a-f]{1,16}")


class Selection(NamedTuple):
    """Letters that fulfil every condition that is given.

    ``cause``: the beginning of a fingerprint. ``since`` and ``until``: when they failed, in ms since 1970.
    ``places``: partition and offset in the dead letter topic. ``ids``: those of letters.
    """

    cause: str = ""
    since: int | None = None
    until: int | None = None
    connector: str = ""
    places: frozenset[tuple[int, int]] = frozenset()
    ids: frozenset[str] = frozenset()

    @staticmethod
    def parse(
        cause: str | None = None,
        since: int | None = None,
        until: int | None = None,
        connector: str | None = None,
        letters: tuple[str, ...] = (),
    ) -> Selection:
        """Return the selection of a command. ``letters``: ids, or PARTITION@OFFSET.

        Raises ``ValueError`` with the fix.
        """
        if cause is not None and not _CAUSE.fullmatch(cause):
            raise ValueError(
                f"{cause[:40]!r} is not the beginning of a cause, such as 3f9c; see tieline dlq list"
            )
        if since is not None and until is not None and since >= until:
            raise ValueError("--since is not before --until, so no letter is selected")
        places, ids = set(), set()
        for text in letters:
            place = _PLACE.fullmatch(text)
            if place is None:
                ids.add(text)
            else:
                places.add((int(place[1]), int(place[2])))
        return Selection(cause or "", since, until, connector or "", frozenset(places), frozenset(ids))

    @property
    def is_everything(self) -> bool:
        """Whether no condition is given."""
        return self == Selection()

    def includes(self, letter: DeadLetter) -> bool:
        """Return whether a letter is selected."""
        if self.places or self.ids:
            place = letter.stored[1:] if letter.stored else None
            if place not in self.places and letter.id not in self.ids:
                return False
        if self.connector and letter.connector != self.connector:
            return False
        if self.since is not None and (letter.failed_at is None or letter.failed_at < self.since):
            return False
        if self.until is not None and (letter.failed_at is None or letter.failed_at >= self.until):
            return False
        return letter.fingerprint.startswith(self.cause)
