"""Offsets of stopped connectors, on the local log."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tieline.api import TopicPartition
from tieline.broker.local.store import Store
from tieline.broker.offset_admin import GroupState, Span


class LocalOffsetAdmin:
    """An ``OffsetAdmin`` on the local log. To change offsets, own the log, so that no worker runs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def groups(self, timeout: float) -> Collection[str]:
        """Return all groups with a committed offset; see ``OffsetAdmin.groups``."""
        return self._store.groups()

    def group(self, name: str, timeout: float) -> GroupState:
        """Return a group; see ``OffsetAdmin.group``."""
        return GroupState(self._store.committed(name))

    def spans(self, topics: Collection[str], timeout: float) -> dict[TopicPartition, Span]:
        """Return the span of each partition of these topics; see ``OffsetAdmin.spans``."""
        return {
            partition: Span(bounds.start, bounds.end)
            for partition, bounds in self._store.bounds().items()
            if partition.topic in topics
        }

    def first_since(
        self, topics: Collection[str], timestamp: int, timeout: float
    ) -> dict[TopicPartition, int]:
        """Return the first offset at or after a time, else the end; see ``OffsetAdmin.first_since``."""
        return {
            partition: self._store.first_since(bounds, timestamp)
            for partition, bounds in self._store.bounds().items()
            if partition.topic in topics
        }

    def has_changelog(self, topic: str, timeout: float) -> bool:
        """Return whether a sink keeps a changelog of this name; see ``OffsetAdmin.has_changelog``."""
        file = self._store.path.with_name("ledger.db")
        if not file.exists():
            return False
        with Store(file, owner=False) as changelogs:
            return changelogs.described(topic) is not None

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], timeout: float) -> None:
        """Set offsets of a group; see ``OffsetAdmin.commit``."""
        self._store.commit(group, offsets, timeout)

    def remove(self, group: str, timeout: float) -> None:
        """Remove all offsets of a group; see ``OffsetAdmin.remove``."""
        self._store.submit(lambda tables: tables.remove_group(group)).result(timeout)

    def sources(self, timeout: float) -> Collection[str]:
        """Return the connectors with saved source offsets; see ``OffsetAdmin.sources``."""
        return self._store.sources()

    def save_source(self, connector: str, offsets: Mapping[str, str | None], timeout: float) -> None:
        """Save source offsets; see ``OffsetAdmin.save_source``."""
        self._store.save_source_offsets(connector, offsets, timeout)
