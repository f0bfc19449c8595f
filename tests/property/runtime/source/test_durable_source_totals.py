"""The durable totals of source partitions against a model of the broker, over crashes at any moment."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tieline.runtime.source.source_totals import SourceTotals
from tieline.runtime.task.ledger import DeliveryLedger
from tieline.runtime.task.totals import Ended, Totals, decode_note

PARTITIONS = ["a", "b"]
FATES = st.lists(st.sampled_from(["delivered", "delivered", "filtered", "dead"]), max_size=5)


class Sent:
    """A batch: the fate of each record by source partition, its ledger entries, and its notes as a unit."""

    def __init__(self, fates):
        self.fates = fates
        self.entries = {}
        self.notes = {}

    def expected(self):
        return {p: ended(fates) for p, fates in self.fates.items()}


def ended(fates):
    return Ended(fates.count("delivered"), fates.count("dead"), fates.count("filtered"))


class Lives(RuleBasedStateMachine):
    """``counted``: the fates of the records before the stored offset, which is their number.

    ``with_units``: the broker stores offset and note of a batch with its records, as the local log does.
    """

    @initialize(with_units=st.booleans())
    def begin(self, with_units):
        self.with_units = with_units
        self.notes = {}
        self.counted: dict[str, list[str]] = {partition: [] for partition in PARTITIONS}
        self.start()

    @rule()
    def start(self):
        self.ledger: DeliveryLedger[str, str] = DeliveryLedger()
        self.totals = SourceTotals(self.ledger)
        self.totals.load(self.notes)
        self.sent = []
        self.written = 0  # batches that the broker has
        self.settled = 0
        self.read = {partition: list(fates) for partition, fates in self.counted.items()}

    @rule(a=FATES, b=FATES)
    def send(self, a, b):
        batch = Sent({p: fates for p, fates in (("a", a), ("b", b)) if fates})
        for partition, fates in batch.fates.items():
            self.read[partition] += fates
            filtered = fates.count("filtered")
            offset = str(len(self.read[partition]))
            batch.entries[partition] = self.ledger.dispatch(partition, offset, len(fates), filtered)
        self.totals.enter(batch.fates, 1000)
        batch.notes = self.totals.expect(batch.expected())
        self.sent.append(batch)

    @rule(data=st.data())
    @precondition(lambda self: self.written < len(self.sent))
    def refuse_late(self, data):
        """A record of a batch on its way becomes a dead letter; a new producer gets all batches again."""
        unsent = range(self.written, len(self.sent))
        batch = self.sent[data.draw(st.sampled_from(unsent))]
        for partition, fates in batch.fates.items():
            if "delivered" in fates:
                fates[fates.index("delivered")] = "dead"
            known = [fate for each in self.sent for fate in each.fates.get(partition, ())]
            read = self.read[partition]
            read[len(read) - len(known) :] = known
        self.totals.expect_again()
        for again in self.sent[self.settled :]:
            again.notes = self.totals.expect(again.expected())

    @rule()
    @precondition(lambda self: self.written < len(self.sent))
    def write(self):
        batch = self.sent[self.written]
        self.written += 1
        if self.with_units:
            self.notes |= batch.notes
            for partition, fates in batch.fates.items():
                self.counted[partition] += fates

    @rule()
    @precondition(lambda self: self.settled < self.written)
    def acknowledge(self):
        batch = self.sent[self.settled]
        self.settled += 1
        for partition, entry in batch.entries.items():
            now = batch.expected()[partition]
            self.ledger.settle(entry, now.delivered, now.dead_lettered)
        self.totals.complete(batch.expected())

    @rule(killed=st.sampled_from(["", "before", "after"]))
    def save(self, killed):
        offsets = self.ledger.committable()
        notes = self.totals.notes(offsets)
        if killed == "before":
            self.start()
            return
        if not self.with_units:
            self.notes |= notes
            for partition, offset in offsets.items():
                self.counted[partition] = self.read[partition][: int(offset)]
        if killed == "after":
            self.start()
            return
        self.ledger.committed(offsets)
        self.totals.confirm(offsets)

    @invariant()
    def the_stored_totals_are_those_of_each_record_before_the_offset_once(self):
        for partition, fates in getattr(self, "counted", {}).items():
            totals = decode_note(self.notes.get(partition, "")) or Totals(0, 0)
            counts = Counter(fates)
            assert totals[2:6] == (len(fates), counts["delivered"], counts["dead"], counts["filtered"])

    @invariant()
    def what_was_read_is_saved_or_in_flight(self):
        for partition, view in self.totals.views.items() if hasattr(self, "totals") else ():
            assert view.totals.received + view.in_flight == len(self.read[partition])
            assert view.mismatch == 0


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=200, deadline=None)
