"""The durable totals of a sink against a model of the log, over crashes at any moment."""

from types import SimpleNamespace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tieline.api import RetriableError, TopicPartition
from tieline.broker.records import Committed, ConsumedRecord
from tieline.runtime.sink.commit_tracker import CommitTracker
from tieline.runtime.task.totals import decode_note
from tieline.testing.clock import FakeClock

PARTITIONS = [TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)]

FATES = st.sampled_from(["delivered", "delivered", "filtered", "dead"])


class Lives(RuleBasedStateMachine):
    """``stored`` is what the broker has. ``counted``: what became of each record before a stored offset."""

    @initialize(first=st.lists(st.integers(0, 5), min_size=3, max_size=3))
    def begin(self, first):
        self.stored = {}
        self.position = dict(zip(PARTITIONS, first, strict=True))  # retention has removed what is before
        self.counted: dict[Any, list[Any]] = {partition: [] for partition in PARTITIONS}
        self.waiting: Any = None
        self.start()

    def start(self):
        """Begin a life: every partition is assigned, and read from its committed offset."""
        self.tracker = CommitTracker(self.no_changelogs(), clock=FakeClock())
        self.tracker.totals.gapless = True
        self.tracker.load(PARTITIONS, self.stored)
        self.position |= {partition: stored.offset for partition, stored in self.stored.items()}
        self.fates: dict[Any, list[Any]] = {partition: [] for partition in PARTITIONS}  # since the commit
        self.waiting = None
        self.begun = set(self.stored)  # the partitions that are counted

    def no_changelogs(self) -> Any:
        return SimpleNamespace(open={}, offsets=dict)

    @rule(partition=st.sampled_from(PARTITIONS), fates=st.lists(FATES, min_size=1, max_size=6))
    def read(self, partition, fates):
        first = self.position[partition]
        numbers = range(first, first + len(fates))
        batch = [ConsumedRecord(partition.topic, partition.partition, n, b"", None, (), n) for n in numbers]
        indexes = [index for index, fate in enumerate(fates) if fate == "delivered"]
        dead = [index for index, fate in enumerate(fates) if fate == "dead"]
        self.tracker.track(batch, indexes, [True] * len(batch), dead)
        self.position[partition] = numbers.stop
        self.begun.add(partition)
        self.fates[partition] += zip(numbers, fates, strict=True)

    @rule(partition=st.sampled_from(PARTITIONS), count=st.integers(1, 4), commit=st.booleans())
    def expire(self, partition, count, commit):
        first = self.position[partition]
        self.tracker.skip(partition, first, first + count, commit=commit)
        self.position[partition] = first + count
        if partition in self.begun:  # else counting begins behind it
            self.fates[partition] += [(n, "skipped") for n in range(first, first + count)]
        elif commit:
            self.begun.add(partition)

    @rule(partition=st.sampled_from(PARTITIONS), data=st.data())
    def settle(self, partition, data):
        fates = self.fates[partition]
        if fates:
            self.tracker.settle({partition: data.draw(st.integers(fates[0][0], fates[-1][0] + 1))})

    @rule(ending=st.sampled_from(["confirmed", "failed", "on its way", "killed before", "killed after"]))
    def commit(self, ending):
        is_on_its_way = self.waiting is not None and ending in ("confirmed", "failed", "on its way")

        def store(offsets):
            if is_on_its_way:
                return False  # another commit is: the next one includes these
            if ending == "failed":
                raise RetriableError("the broker is unavailable")
            notes = self.tracker.totals.notes(offsets)
            assert notes.keys() == offsets.keys()
            self.waiting = {p: Committed(offset, notes[p]) for p, offset in offsets.items()}
            return ending == "confirmed"

        try:
            self.tracker.commit(store, None)
        except RetriableError:
            return
        if is_on_its_way:
            return
        if ending == "killed before":
            self.start()
        elif ending == "killed after":
            self.take_effect()
            self.start()
        elif ending == "confirmed":
            self.take_effect()

    @rule()
    @precondition(lambda self: self.waiting is not None)
    def confirm(self):
        offsets = {partition: stored.offset for partition, stored in self.waiting.items()}
        self.take_effect()
        self.tracker.confirm(offsets)

    def take_effect(self):
        """Store what the broker was given."""
        waiting: Any = self.waiting or {}
        for partition, stored in waiting.items():
            fates = self.fates[partition]
            self.counted[partition] += [fate for fate in fates if fate[0] < stored.offset]
            self.fates[partition] = [fate for fate in fates if fate[0] >= stored.offset]
        self.stored |= waiting
        self.waiting = None

    @rule()
    def crash(self):
        self.start()

    @rule(partition=st.sampled_from(PARTITIONS))
    @precondition(lambda self: self.waiting is None)
    def rebalance(self, partition):
        self.tracker.drop([partition])
        self.fates[partition] = []
        self.begun.discard(partition)
        if partition in self.stored:
            self.begun.add(partition)
            self.position[partition] = self.stored[partition].offset
        self.tracker.load([partition], self.stored)

    @invariant()
    def the_stored_totals_are_those_of_each_record_before_the_offset_once(self):
        for partition, stored in getattr(self, "stored", {}).items():
            totals = decode_note(stored.note)
            assert totals is not None
            numbers = [number for number, _ in self.counted[partition]]
            assert len(numbers) == len(set(numbers))
            fates = [fate for _, fate in self.counted[partition]]
            assert totals.delivered == fates.count("delivered")
            assert totals.filtered == fates.count("filtered")
            assert totals.dead_lettered == fates.count("dead")
            assert totals.skipped == fates.count("skipped")
            assert totals.received == len(fates) - totals.skipped
            assert totals.mismatch(stored.offset, gapless=True) == 0

    @invariant()
    def what_was_read_is_committed_or_in_flight(self):
        for partition, view in self.tracker.totals.views.items() if hasattr(self, "tracker") else ():
            unstored = [fate for _, fate in self.fates[partition] if fate != "skipped"]
            assert view.in_flight == len(unstored)
            assert view.mismatch == 0


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=150, deadline=None)  # a split entry needs several steps in a row
