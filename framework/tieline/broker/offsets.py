"""Offsets of stopped connectors, seen and changed from outside; both backends keep this contract."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tieline.api import TopicPartition


class Span(NamedTuple):
    """The first offset that a partition holds, and the one that its next record gets."""

    first: int
    end: int


@dataclass(frozen=True)
class GroupState:
    """A consumer group: its committed offsets, and who is in it now (client ids, with their hosts)."""

    committed: Mapping[TopicPartition, int] = field(default_factory=dict)
    members: Collection[str] = ()


class OffsetStore(Protocol):
    """Committed offsets of consumer groups, and saved offsets of sources; see ``Broker.offsets``.

    Every method raises ``Retriable`` while the broker is unavailable, ``Fatal`` where a right is missing.
    """

    def groups(self, timeout: float) -> Collection[str]:
        """All groups with a committed offset, of tieline and of others."""

    def group(self, name: str, timeout: float) -> GroupState:
        """One group; empty if there is none. On the local log it shows no members: its lock guards it."""

    def spans(self, topics: Collection[str], timeout: float) -> dict[TopicPartition, Span]:
        """Of each partition of these topics; a topic that does not exist is left out."""

    def first_since(
        self, topics: Collection[str], timestamp: int, timeout: float
    ) -> dict[TopicPartition, int]:
        """The first record with this timestamp (ms since 1970) or a later one; else the end."""

    def has_changelog(self, topic: str, timeout: float) -> bool:
        """Whether a sink keeps a changelog under this name: what it did, which an offset cannot take back."""

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], timeout: float) -> None:
        """Set offsets of a group without members. Raises ``Fatal`` where it has some."""

    def forget(self, group: str, timeout: float) -> None:
        """Remove all of a group's offsets. Raises ``Fatal`` where it has members."""

    def sources(self, timeout: float) -> Collection[str]:
        """The connectors with saved source offsets."""

    def save_source(self, connector: str, offsets: Mapping[str, str | None], timeout: float) -> None:
        """Save source offsets as in ``Unit.offsets``; None removes one."""
