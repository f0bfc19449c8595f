"""Groups of the local log: however members come, go and take turns, a partition has one owner."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tieline.api import TopicPartition
from tieline.broker.local.group import Group

TOPICS = ("a", "b", "c")


class Member:
    def __init__(self, topics):
        self.topics = topics
        self.owned: set[TopicPartition] = set()

    def wants(self, topic):
        return topic in self.topics

    def turn(self, group):
        """What a consumer does in its poll."""
        going = group.to_release(self)
        self.owned -= set(going)
        group.release(self, going)
        coming = group.claim(self)
        self.owned |= set(coming)
        return bool(going or coming)


class GroupModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.group = Group(lambda: None)
        self.members: list[Member] = []
        self.partitions: set[TopicPartition] = set()

    @rule(topics=st.sets(st.sampled_from(TOPICS), min_size=1))
    def join(self, topics):
        if len(self.members) < 5:
            self.members.append(Member(topics))
            self.group.join(self.members[-1])

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def leave(self, data):
        self.group.leave(self.members.pop(data.draw(st.integers(0, len(self.members) - 1))))

    @rule(topic=st.sampled_from(TOPICS), count=st.integers(0, 5))
    def create(self, topic, count):
        self.partitions = {partition for partition in self.partitions if partition.topic != topic}
        self.partitions |= {TopicPartition(topic, number) for number in range(count)}
        self.group.update(self.partitions)

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def one_turn(self, data):
        self.members[data.draw(st.integers(0, len(self.members) - 1))].turn(self.group)

    @rule()
    def settle(self):
        for _ in range(3):
            for member in self.members:
                member.turn(self.group)
        assert not any(member.turn(self.group) for member in self.members)
        owned = [partition for member in self.members for partition in member.owned]
        wanted = {
            partition for partition in self.partitions if any(m.wants(partition.topic) for m in self.members)
        }
        assert sorted(owned) == sorted(wanted)
        for member in self.members:
            assert all(member.wants(partition.topic) for partition in member.owned)
            for other in self.members:
                if other.topics == member.topics:
                    assert abs(len(member.owned) - len(other.owned)) <= 1

    @invariant()
    def no_partition_is_shared(self):
        owned = [partition for member in self.members for partition in member.owned]
        assert len(owned) == len(set(owned))


GroupModel.TestCase.settings = settings(stateful_step_count=30)
TestGroupModel = GroupModel.TestCase
