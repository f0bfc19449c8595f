"""What sinks have done with the records that a replay wrote for them."""

from __future__ import annotations

from collections.abc import Mapping

from tieline.broker.internal import replay_topic
from tieline.broker.port import Broker
from tieline.config.planned import ConnectorPlan
from tieline.dead_letters.jobs import Job
from tieline.topics.dead_letters.ledger import ReplayLedger
from tieline.topics.dead_letters.reading import read_letters

_TIMEOUT = 10.0
_MARGIN_MS = 3_600_000


def written_since(job: Job) -> int:
    """Return from which time on the records of a job are searched, in ms since 1970.

    It is an hour before the job: clocks differ, and a source's records keep times that are near.
    """
    return max(0, job.at - _MARGIN_MS)


class SinkProgress:
    """The records that were written for sinks, and what became of them. Used by one thread."""

    def __init__(self, broker: Broker, plans: Mapping[str, ConnectorPlan]) -> None:
        self._broker = broker
        self._plans = plans
        self._sent: dict[tuple[str, int, int], str] = {}

    @property
    def waiting(self) -> int:
        """How many records were noted and are not settled."""
        return len(self._sent)

    def clear(self) -> None:
        """Forget everything."""
        self._sent.clear()

    def note(self, place: tuple[str, int, int], letter_id: str) -> None:
        """Note the place of a record that was written for a letter."""
        self._sent[place] = letter_id

    def handled(self) -> int:
        """Return how many of these records the sinks have committed."""
        committed = self._committed()
        return sum(offset < committed.get((topic, number), 0) for topic, number, offset in self._sent)

    def settle(self, ledger: ReplayLedger, job: Job) -> None:
        """Enter into the ledger what the sinks have committed, as delivered or as dead-lettered again.

        The committed offsets are read first: a letter is stored before the offset behind its record.
        """
        committed = self._committed()
        handled = {
            place: letter_id
            for place, letter_id in self._sent.items()
            if place[2] < committed.get(place[:2], 0)
        }
        again: set[str] = set()
        if handled:
            ids = set(handled.values())
            for topic in sorted(self._letter_topics(job)):
                for letter in read_letters(self._broker, topic, since=written_since(job)):
                    if letter.replay_of in ids:
                        again.add(letter.replay_of)
        ledger.waiting -= len(handled)
        ledger.again += len(again)
        ledger.delivered += len(handled) - len(again)
        for place in handled:
            del self._sent[place]

    def _committed(self) -> dict[tuple[str, int], int]:
        committed: dict[tuple[str, int], int] = {}
        topics = {topic for topic, _, _ in self._sent}
        for name in self._plans:
            if replay_topic(name) in topics:
                group = self._broker.offsets.group(f"connect-{name}", _TIMEOUT)
                committed |= {
                    (where.topic, where.partition): offset for where, offset in group.committed.items()
                }
        return committed

    def _letter_topics(self, job: Job) -> set[str]:
        queues = [plan.settings.dead_letters for plan in self._plans.values()]
        return {job.letters, *(queue.topic for queue in queues if queue is not None)}
