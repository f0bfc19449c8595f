"""The smallest sink: prints each value. Run it with ``tieline dev``, or installed:

tieline.sinks =
    printer = smallest_sink:Printer          name=print, connector.class=printer, topics=numbers
"""

from collections.abc import Mapping, Sequence

from tieline.api import Config, SinkRecord, SinkTask, TopicPartition, setting


class PrinterConfig(Config):
    """What a user may set."""

    prefix: str = setting("prefix", "", doc="Printed before each value.")


class Printer(SinkTask[PrinterConfig]):
    """What the entry point names."""

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Write or buffer."""
        for record in batch:
            print(f"{self.config.prefix}{record.value}")

    def flush(self, offsets: Mapping[TopicPartition, int]) -> None:
        """When this returns, all of it is safe, and these offsets are committed."""
        print(end="", flush=True)
