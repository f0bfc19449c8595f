"""What a note of a committed offset may be, on both backends."""

from __future__ import annotations

from collections.abc import Mapping

from tieline.api import FatalError, TopicPartition

MAX_NOTE_BYTES = 4096
"""In UTF-8. A Kafka broker stores as much by default (``offset.metadata.max.bytes``)."""


def check_notes(notes: Mapping[TopicPartition, str]) -> None:
    """Raise ``FatalError`` for a note that Kafka would not store as it is."""
    for (topic, number), note in notes.items():
        if "\0" in note:
            raise FatalError(
                f"the note of the offset of {topic}-{number} contains a NUL; nothing is committed"
            )
        size = len(note.encode())
        if size > MAX_NOTE_BYTES:
            raise FatalError(
                f"the note of the offset of {topic}-{number} has {size} bytes; at most {MAX_NOTE_BYTES} are "
                "possible; nothing is committed"
            )
