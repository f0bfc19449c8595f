"""Tables of tables that can be forked cheaply: an inner table is copied only before it changes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
N = TypeVar("N", bound=Hashable)
V = TypeVar("V")


class Groups(Generic[K, N, V]):
    """Values by key and name. A key without a value does not exist."""

    def __init__(self, groups: Mapping[K, dict[N, V]] | None = None) -> None:
        self._groups = dict(groups or {})
        self._unshared: set[K] = set()  # keys whose inner table no fork shares

    def fork(self) -> Groups[K, N, V]:
        """Return a copy that does not change with this one. Only the outer table is copied."""
        self._unshared.clear()
        return Groups(self._groups)

    def __iter__(self) -> Iterator[K]:
        return iter(self._groups)

    def get(self, key: K) -> Mapping[N, V]:
        """Return the values of a key by name; empty if there are none."""
        return self._groups.get(key, {})

    def put(self, key: K, name: N, value: V) -> None:
        """Add or replace a value."""
        self._unshare(key)[name] = value

    def remove(self, key: K, name: N) -> None:
        """Remove a value if it exists."""
        if name in self.get(key):
            del self._unshare(key)[name]
            if not self._groups[key]:
                del self._groups[key]
                self._unshared.discard(key)

    def _unshare(self, key: K) -> dict[N, V]:
        if key not in self._unshared:
            self._groups[key] = dict(self._groups.get(key, {}))
            self._unshared.add(key)
        return self._groups[key]
