"""The smallest source: counts, and resumes after a restart. Run it with ``tieline dev``, or installed:

tieline.sources =
    counter = smallest_source:Counter        name=count, connector.class=counter, topic=numbers
"""

from tieline.api import Config, SourceRecord, SourceTask, setting


class CounterConfig(Config):
    """The settings of the source."""

    topic: str = setting("topic", doc="The topic to write to.")


class Counter(SourceTask[CounterConfig]):
    """The class that the entry point names."""

    def start(self) -> None:
        """Resume from the offset that was saved for this source partition."""
        saved = self.context.offset({"counter": "all"})
        self.next = int((saved or {"next": 0})["next"] or 0)

    def poll(self, max_records: int, max_wait: float) -> list[SourceRecord]:
        """Return one record, with the offset from which to resume after it."""
        self.next += 1
        return [
            SourceRecord(
                topic=self.config.topic,
                value=self.next,
                source_partition={"counter": "all"},
                source_offset={"next": self.next},
            )
        ]
