"""The smallest sink: prints each value. Run it with ``tieline dev``, or installed:

tieline.sinks =
    printer = smallest_sink:Printer          name=print, connector.class=printer, topics=numbers
"""

from collections.abc import Mapping, Sequence

from tieline.api import Config, SinkRecord, SinkTask, TopicPartition, setting


class PrinterConfig(Config):
    """The settings of the sink."""

    prefix: str = setting("prefix", "", doc="Printed before each value.")


class Printer(SinkTask[PrinterConfig]):
    """The class that the entry point names."""

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Write or buffer the records."""
        for record in batch:
            print(f"{self.config.prefix}{record.value}")

    def flush(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Make all records of ``put`` safe; then these offsets are committed."""
        print(end="", flush=True)
