"""How long and how often an operation is retried; pure."""

from __future__ import annotations

from typing import NamedTuple


class RetryPolicy(NamedTuple):
    """How an outage is waited out, in seconds. ``timeout`` -1: without a limit."""

    first_delay: float = 0.3
    max_delay: float = 60.0
    timeout: float = -1.0
