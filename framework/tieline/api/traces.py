"""The interface for lookups of ``tieline trace`` in a connector's store (entry points ``tieline.traces``).

The entry point has the name of the connector's plugin and is a function:

    def lookup(question: TraceQuestion) -> Iterable[Sighting]: ...

It returns what its store knows of a record. If it cannot look, it raises ``TielineError``, ``OSError`` or
``ValueError``; the message is shown, and must not contain a secret. It must end within some seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sighting:
    """A place where a record was found.

    ``place``: such as ``the collection lab.readings``. ``state``: what became of it, such as ``stored``.
    """

    place: str
    state: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TraceQuestion:
    """Which record is asked for, and the settings of the connector that may have stored it."""

    record_id: str
    settings: Mapping[str, str]
    """The connector's own flat map."""
    topics: tuple[str, ...]
    """The topics that it reads; empty if they are chosen by a pattern."""
    data_dir: Path
