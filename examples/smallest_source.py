"""The smallest source: counts, and goes on where it was after a restart. Its entry point and its file:

tieline.sources =
    counter = smallest_source:Counter        name=count, connector.class=counter, topic=numbers
"""

from tieline.api import Config, SourceConnector, SourceContext, SourceRecord, SourceTask, setting


class CounterConfig(Config):
    """What a user may set."""

    topic: str = setting("topic", doc="The topic to write to.")


class CounterTask(SourceTask[CounterConfig]):
    """What does the work."""

    def start(self, context: SourceContext, config: CounterConfig) -> None:
        """Find out where to go on; what is read has a name, and an offset of its own."""
        self.topic = config.topic
        (saved,) = context.offsets([{"counter": "all"}])
        self.next = int((saved or {"next": 0})["next"] or 0)

    def poll(self, max_records: int, max_wait: float) -> list[SourceRecord]:
        """One record, with the offset at which to go on after it."""
        self.next += 1
        offset = {"next": self.next}
        return [SourceRecord(self.topic, self.next, None, {"counter": "all"}, offset)]


class Counter(SourceConnector[CounterConfig]):
    """What the entry point names."""

    config_type = CounterConfig
    task_type = CounterTask
