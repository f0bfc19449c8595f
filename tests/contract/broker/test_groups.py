"""How the members of a group share partitions, on both backends."""

from tieline.api import TopicPartition
from tieline.broker.records import Committed


def test_two_members_share_the_partitions_evenly(kit):
    topic, group = kit.topic(partitions=4), kit.name()
    first, first_listener = kit.member(group, [topic])
    kit.until(lambda: len(first_listener.owned) == 4, first)
    second, second_listener = kit.member(group, [topic])
    kit.until(lambda: len(first_listener.owned) == 2 and len(second_listener.owned) == 2, first, second)
    assert first_listener.owned | second_listener.owned == {TopicPartition(topic, n) for n in range(4)}
    assert first_listener.owned.isdisjoint(second_listener.owned)


def test_a_rebalance_revokes_only_partitions_that_move(kit):
    topic, group = kit.topic(partitions=4), kit.name()
    first, first_listener = kit.member(group, [topic])
    kit.until(lambda: len(first_listener.owned) == 4, first)
    second, second_listener = kit.member(group, [topic])
    kit.until(lambda: len(second_listener.owned) == 2, first, second)
    revoked = [partitions for event, partitions in first_listener.events if event == "revoked"]
    assert revoked == [second_listener.owned]


def test_a_partition_is_handed_over_only_after_revoked_returned_and_its_commit_counts(kit):
    """Every record is processed once: committed in revoked, or read by the new owner, never both."""
    topic, group = kit.topic(partitions=4), kit.name()
    for n in range(4):
        kit.fill(topic, 100, start=n * 1000, partition=n)
    first, first_listener = kit.member(group, [topic])
    positions: dict[TopicPartition, int] = {}
    order = []

    def commit(partitions):
        order.append(("releasing", frozenset(partitions)))
        assert second_listener.owned.isdisjoint(partitions)
        first.commit(
            {partition: positions[partition] for partition in partitions if partition in positions}, 10
        )
        order.append(("released", frozenset(partitions)))

    numbers = []

    def process(records):
        for record in records:
            numbers.append(int(record.value))
            positions[TopicPartition(record.topic, record.partition)] = record.offset + 1

    process(kit.take(first, 150, at_once=10))
    first_listener.on_revoked = commit
    second, second_listener = kit.member(group, [topic])
    while len(second_listener.owned) < 2:
        process(first.poll(10, 0.05))
        numbers += [int(record.value) for record in second.poll(10, 0.05)]
    assert [what for what, _ in order] == ["releasing", "released"]
    assert order[0][1] == second_listener.owned
    while len(numbers) < 400:
        process(first.poll(10, 0.05))
        numbers += [int(record.value) for record in second.poll(10, 0.05)]
    assert sorted(numbers) == sorted(n * 1000 + m for n in range(4) for m in range(100))


def test_a_leaving_member_is_revoked_first_and_the_other_takes_all(kit):
    topic, group = kit.topic(partitions=2), kit.name()
    first, first_listener = kit.member(group, [topic])
    second, second_listener = kit.member(group, [topic])
    kit.until(lambda: len(first_listener.owned) == len(second_listener.owned) == 1, first, second)
    (mine,) = first_listener.owned
    first_listener.on_revoked = lambda partitions: first.commit({mine: 0}, 10)
    first.close(10)
    assert first_listener.events[-1] == ("revoked", {mine})
    kit.until(lambda: len(second_listener.owned) == 2, second)
    assert second.committed([mine], 10) == {mine: Committed(0)}


def test_a_member_without_a_partition_waits_until_one_leaves(kit):
    topic, group = kit.topic(), kit.name()
    first, first_listener = kit.member(group, [topic])
    kit.until(lambda: len(first_listener.owned) == 1, first)
    second, second_listener = kit.member(group, [topic])
    kit.fill(topic, 5)
    came = kit.until(lambda: bool(first.poll(10, 0.05)), second)
    assert (came, second_listener.owned) == ([], set())
    first.close(10)
    kit.until(lambda: len(second_listener.owned) == 1, second)


def test_members_of_different_topics_each_get_their_own(kit):
    topics, group = [kit.topic(partitions=2), kit.topic(partitions=2)], kit.name()
    members = [kit.member(group, [topic]) for topic in topics]
    consumers = [consumer for consumer, _ in members]
    kit.until(lambda: all(len(listener.owned) == 2 for _, listener in members), *consumers)
    assert [{partition.topic for partition in listener.owned} for _, listener in members] == [
        {t} for t in topics
    ]


def test_a_partition_that_returns_delivers_records_although_it_was_paused_when_revoked(kit):
    topic, group = kit.topic(partitions=2), kit.name()
    first, first_listener = kit.member(group, [topic])
    kit.until(lambda: len(first_listener.owned) == 2, first)
    first.pause(sorted(first_listener.owned))
    second, second_listener = kit.member(group, [topic])
    kit.until(lambda: len(first_listener.owned) == len(second_listener.owned) == 1, first, second)
    (moved,), (kept,) = second_listener.owned, first_listener.owned
    second.close(10)
    kit.until(lambda: len(first_listener.owned) == 2, first)
    kit.fill(topic, 3, partition=kept.partition)
    kit.fill(topic, 3, start=10, partition=moved.partition)
    assert [int(record.value) for record in kit.take(first, 3)] == [10, 11, 12]
    assert first.poll(10, 0.5) == []  # the other partition was not revoked: it is still paused
    first.resume([kept])
    assert [int(record.value) for record in kit.take(first, 3)] == [0, 1, 2]
