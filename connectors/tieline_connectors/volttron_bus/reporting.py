"""Telling the runtime whether the platform is connected."""

from __future__ import annotations

from collections.abc import Callable

from tieline.api import SinkContext, SourceContext


def connection_reporter(context: SinkContext | SourceContext, address: str) -> Callable[[str | None], None]:
    """A function of why the platform at this address cannot be reached now; None: it is connected."""
    to = f"the platform at {address}"

    def report(because: str | None) -> None:
        if because is None:
            context.connected(to)
        else:
            context.not_connected(to, because)

    return report
