"""What describes one metric."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

CONNECTOR = ("connector",)
"""The labels of what is counted for each connector."""

TASK = ("connector", "task")
"""The labels of what is counted for each task."""


class Definition(NamedTuple):
    """One metric. A counter's name ends in ``_total``."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
