"""The ledger against a naive model that remembers every record."""

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tieline.runtime.task.ledger import DeliveryLedger, skipped

ROOM = 1000  # between the offsets of two batches, for those at which a batch is split


class LedgerAndModel(RuleBasedStateMachine):
    """The model keeps, a partition, a list of batches with each record's fate; nothing is ever forgotten."""

    open_entries = Bundle("open_entries")

    def __init__(self):
        super().__init__()
        self.ledger: DeliveryLedger[str, int] = DeliveryLedger()
        self.model = {}
        self.reported = {}
        self.next_offset = 0

    @rule(
        target=open_entries,
        partition=st.sampled_from("abc"),
        fates=st.lists(st.booleans(), max_size=5),
        hole=st.integers(0, 3),
    )
    def dispatch(self, partition, fates, hole):
        self.next_offset += ROOM * (1 + hole)  # offsets have holes
        filtered = sum(fates)
        entry = self.ledger.dispatch(partition, self.next_offset, len(fates), filtered)
        batch = {"offset": self.next_offset, "fates": ["filtered" if f else None for f in fates]}
        self.model.setdefault(partition, []).append(batch)
        return entry, partition, batch

    @rule(target=open_entries, held=consumes(open_entries), dead=st.booleans(), data=st.data())
    def settle(self, held, dead, data):
        entry, _, batch = held
        if batch.get("released"):
            return held
        waiting = [n for n, fate in enumerate(batch["fates"]) if fate is None]
        number = data.draw(st.integers(0, len(waiting)))
        self.ledger.settle(entry, **{"dead_lettered" if dead else "delivered": number})
        for n in waiting[:number]:
            batch["fates"][n] = "dead" if dead else "delivered"
        return held

    @rule(target=open_entries, held=consumes(open_entries), data=st.data())
    def split(self, held, data):
        entry, partition, batch = held
        waiting = batch["fates"].count(None)
        if batch.get("released") or not waiting:
            return held
        number = data.draw(st.integers(1, waiting))
        batch["splits"] = batch.get("splits", 0) + 1
        first = {"offset": batch["offset"] - ROOM + batch["splits"], "fates": [None] * number}
        for _ in range(number):
            batch["fates"].remove(None)
        batches = self.model[partition]
        batches.insert(next(i for i, b in enumerate(batches) if b is batch), first)
        self.ledger.settle(self.ledger.split(entry, first["offset"], number), delivered=number)
        first["fates"] = ["delivered"] * number
        return held

    @rule(partition=st.sampled_from("abc"))
    def release(self, partition):
        returned = self.ledger.release(partition)
        expected = 0
        for batch in self.model.get(partition, []):
            if not batch.get("released") and not batch.get("committed"):
                lost = [n for n, fate in enumerate(batch["fates"]) if fate is None]
                expected += len(lost)
                batch["released"] = True
        assert returned == expected

    @rule()
    def commit(self):
        offsets = self.ledger.committable()
        self.ledger.committed(offsets)
        self.reported.update(offsets)
        for partition, offset in offsets.items():
            for batch in self.model[partition]:
                if batch["offset"] <= offset:
                    batch["committed"] = True

    @invariant()
    def the_counts_are_those_of_the_model_and_add_up(self):
        fates = [f for batches in self.model.values() for b in batches for f in b["fates"]]
        gone = sum(b["fates"].count(None) for bs in self.model.values() for b in bs if b.get("released"))
        counts = self.ledger.counts
        assert counts.received == len(fates) - gone
        assert counts.delivered == fates.count("delivered")
        assert counts.dead_lettered == fates.count("dead")
        assert counts.filtered == fates.count("filtered")
        assert counts.in_flight == fates.count(None) - gone
        assert counts.received == sum(counts[1:])

    @invariant()
    def an_offset_is_safe_only_after_every_earlier_batch(self):
        safe = self.ledger.committable()
        for partition, batches in self.model.items():
            prefix = None
            for batch in batches:
                if batch.get("released"):
                    prefix = None
                    continue
                if None in batch["fates"]:
                    break
                prefix = batch
            if partition in safe:
                assert prefix is not None
                assert safe[partition] == prefix["offset"]
            elif prefix is not None:
                assert prefix.get("committed")


TestLedger = LedgerAndModel.TestCase


def test_skipped_is_the_total_of_the_counters_that_name_a_reason_and_of_no_others():
    counters = {"skipped.expired": 3, "skipped.tombstone": 4, "retries": 7, "filtered.echo": 9}
    assert skipped(counters) == 7
