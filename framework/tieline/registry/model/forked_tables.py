"""Tables of tables that can be forked: what a fork shares is copied before it changes, and no earlier."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
N = TypeVar("N", bound=Hashable)
V = TypeVar("V")


class Groups(Generic[K, N, V]):
    """Key → name → value. A group without a value is not there."""

    def __init__(self, groups: Mapping[K, dict[N, V]] | None = None) -> None:
        self._groups = dict(groups or {})
        self._own: set[K] = set()

    def fork(self) -> Groups[K, N, V]:
        """The same, which does not change with this one; costs a copy of the outer table."""
        self._own.clear()
        return Groups(self._groups)

    def __iter__(self) -> Iterator[K]:
        return iter(self._groups)

    def get(self, key: K) -> Mapping[N, V]:
        """A group, maybe empty."""
        return self._groups.get(key, {})

    def put(self, key: K, name: N, value: V) -> None:
        """Add or replace a value."""
        self._to_change(key)[name] = value

    def remove(self, key: K, name: N) -> None:
        """Take a value out, if it is there."""
        if name in self.get(key):
            del self._to_change(key)[name]
            if not self._groups[key]:
                del self._groups[key]
                self._own.discard(key)

    def _to_change(self, key: K) -> dict[N, V]:
        if key not in self._own:
            self._groups[key] = dict(self._groups.get(key, {}))
            self._own.add(key)
        return self._groups[key]
