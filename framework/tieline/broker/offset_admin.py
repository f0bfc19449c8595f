"""The interface for the offsets of stopped connectors, which both backends implement."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tieline.api import TopicPartition


class Span(NamedTuple):
    """The first offset that a partition holds, and the offset of its next record."""

    first: int
    end: int


@dataclass(frozen=True)
class GroupState:
    """A consumer group: its committed offsets, and its present members (client ids with their hosts)."""

    committed: Mapping[TopicPartition, int] = field(default_factory=dict)
    members: Collection[str] = ()


class OffsetAdmin(Protocol):
    """Committed offsets of consumer groups, and saved offsets of sources; see ``Broker.offsets``.

    Every method raises ``RetriableError`` while the broker is unavailable, and ``FatalError`` if a permission
    is missing. Every ``timeout`` is in seconds.
    """

    def groups(self, timeout: float) -> Collection[str]:
        """Return all groups with a committed offset, of tieline and of other programs."""

    def group(self, name: str, timeout: float) -> GroupState:
        """Return a group, empty if it does not exist. The local log reports no members: it has a lock."""

    def spans(self, topics: Collection[str], timeout: float) -> dict[TopicPartition, Span]:
        """Return the span of each partition of these topics. A topic that does not exist is left out."""

    def first_since(
        self, topics: Collection[str], timestamp: int, timeout: float
    ) -> dict[TopicPartition, int]:
        """Return the first offset with this timestamp (ms since 1970) or a later one, else the end."""

    def has_changelog(self, topic: str, timeout: float) -> bool:
        """Return whether a sink keeps a changelog of this name: actions that no offset can undo."""

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], timeout: float) -> None:
        """Set offsets of a group. Raises ``FatalError`` if it has members."""

    def remove(self, group: str, timeout: float) -> None:
        """Remove all offsets of a group. Raises ``FatalError`` if it has members."""

    def sources(self, timeout: float) -> Collection[str]:
        """Return the connectors with saved source offsets."""

    def save_source(self, connector: str, offsets: Mapping[str, str | None], timeout: float) -> None:
        """Save source offsets, as in ``Unit.offsets``. ``None`` removes one."""
