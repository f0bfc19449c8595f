"""Commands as marks on a chart: what was written to a point, when, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from urllib.parse import quote

from tieline.api import TielineError
from tieline.api.pages import Mark, PageContext
from tieline_connectors.command.model.point import key_of
from tieline_connectors.command.pages.follower import CommandFollower
from tieline_connectors.command.pages.lives import CommandBook, CommandLife
from tieline_connectors.command.pages.plants import Plants

_SECONDS = 2.0
_MOST = 500
_LATER = 3_600_000_000
"""How long (µs) after its issue a result of a command may come."""


class CommandMarks:
    """Returns marks from what the follower knows. Any thread may call it.

    Only for commands older than that it reads the topics of results, for two seconds at most.
    """

    def __init__(self, context: PageContext, plants: Plants, follower: CommandFollower) -> None:
        self._context = context
        self._plants = plants
        self._follower = follower

    def __call__(self, subjects: Collection[str], start: int, end: int) -> Sequence[Mark]:
        """Return the newest marks of these points in a range, oldest first; see ``Pages.marks``."""
        wanted = {subject: self._keys(subject) for subject in subjects}
        marks: dict[tuple[str, str], Mark] = {}
        complete_from = self._follower.complete_from
        if start < complete_from and any(wanted.values()):
            marks.update(self._marks(self._read(start, min(end, complete_from)), wanted))
        with self._follower.book() as book:
            marks.update(self._marks(book, wanted))
        inside = [mark for mark in marks.values() if start <= mark.time < end]
        return sorted(inside, key=lambda mark: mark.time)[-_MOST:]

    def _keys(self, subject: str) -> Mapping[str, str]:
        """Return the key of a point by the platforms of the sinks that may write it."""
        return {
            platform: key_of(subject[len(platform) + 1 :])
            for platform in {plant.platform for plant in self._plants}
            if subject.startswith(f"{platform}/")
        }

    def _marks(
        self, book: CommandBook, wanted: Mapping[str, Mapping[str, str]]
    ) -> Iterator[tuple[tuple[str, str], Mark]]:
        for subject, keys in wanted.items():
            for platform, key in keys.items():
                for life in book.of_key(key):
                    if life.results and self._plants.platform_of(life) == platform:
                        yield (life.command_id, subject), mark_of(life, subject, key)

    def _read(self, start: int, end: int) -> CommandBook:
        """Return what the topics of results have of a range, as far as the time suffices."""
        book = CommandBook()
        until = time.monotonic() + _SECONDS
        topics = {plant.config.results_topic for plant in self._plants} - {""}
        try:
            with self._context.topics() as client:
                for topic in sorted(topics):
                    reader = client.reader(topic, since=start // 1000)
                    while not reader.at_end and time.monotonic() < until:
                        records = reader.poll(0.2)
                        for record in records:
                            book.add(record.value, topic)
                        if records and (records[-1].timestamp or 0) * 1000 > end + _LATER:
                            break
                    reader.close()
        except TielineError:
            pass  # the chart is shown without them while the broker is unavailable
        return book


def mark_of(life: CommandLife, subject: str, key: str) -> Mark:
    """Return the mark of a command, which has a result, on one of its points."""
    values = zip(life.points, life.requested, strict=True)
    requested = next((value for point, value in values if key_of(point) == key), None)
    text = f"{'revert' if requested is None else requested}: {life.state}"
    first = min(result["at"] for result in life.results)
    return Mark(subject, first, text[:200], f"/commands/{quote(life.command_id, safe='')}")
