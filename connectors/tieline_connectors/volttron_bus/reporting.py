"""Reports to the runtime whether the platform is connected."""

from __future__ import annotations

from collections.abc import Callable

from tieline.api import SinkContext, SourceContext


def connection_reporter(context: SinkContext | SourceContext, address: str) -> Callable[[str | None], None]:
    """Return a function that reports why the platform cannot be reached, or ``None`` if it is connected."""
    platform = f"the platform at {address}"

    def report(reason: str | None) -> None:
        if reason is None:
            context.connected(platform)
        else:
            context.not_connected(platform, reason)

    return report
