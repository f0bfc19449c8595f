"""Which commands a page lists; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tieline_connectors.command.model.point import key_of
from tieline_connectors.command.pages.lives import CommandBook, CommandLife


class CommandFilter(NamedTuple):
    """What a person wants to see; empty: everything."""

    point: str = ""
    """A point or a device."""
    issuer: str = ""
    state: str = ""
    text: str = ""
    """A part of the id, a point, the reason or the explanation; case does not count."""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> CommandFilter:
        """Return the filter of a page's address."""
        return cls(*(query.get(name, "").strip()[:500] for name in cls._fields))

    def matches(self, life: CommandLife) -> bool:
        """Return whether a command is wanted."""
        return (
            self.issuer in ("", life.issuer)
            and self.state in ("", life.state)
            and (not self.point or any(map(self._is_of_point, life.points)))
            and (not self.text or self.text.casefold() in _text_of(life))
        )

    def _is_of_point(self, point: str) -> bool:
        wanted, key = key_of(self.point), key_of(point)
        return key == wanted or key.startswith(f"{wanted}/")


def select(
    book: CommandBook, chosen: CommandFilter, limit: int, before: str = ""
) -> tuple[list[CommandLife], bool]:
    """Return the newest commands that match, and whether there are more.

    ``before``: the id of the last command of the page before.
    """
    lives: list[CommandLife] = []
    for life in _after(book.newest(), before):
        if chosen.matches(life):
            if len(lives) == limit:
                return lives, True
            lives.append(life)
    return lives, False


def _after(lives: Iterable[CommandLife], before: str) -> Iterable[CommandLife]:
    is_skipping = bool(before)
    for life in lives:
        if not is_skipping:
            yield life
        elif life.command_id == before:
            is_skipping = False


def _text_of(life: CommandLife) -> str:
    return " ".join((life.command_id, *life.points, life.reason, life.explanation)).casefold()
