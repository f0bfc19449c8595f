"""The history of commands, and the complete life of one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tieline.api.pages import Page, PageContext, PageRequest, Update
from tieline_connectors.command.pages.follower import CommandFollower
from tieline_connectors.command.pages.listing import CommandFilter, select

_ROWS = 50


class HistoryPages:
    """The list and the life. Safe for many threads; the event loop calls what ends in ``changes``."""

    def __init__(self, context: PageContext, follower: CommandFollower) -> None:
        self._context = context
        self._follower = follower

    def list(self, request: PageRequest) -> Page:
        """Show the newest commands that match the address."""
        chosen = CommandFilter.of(request.query)
        values = {
            **self._rows(chosen, request.query.get("before", "")),
            "filter": chosen,
            "has_documents": self._context.has_page("/documents"),
        }
        return Page("commands.html", "Commands", values)

    def _rows(self, chosen: CommandFilter, before: str = "") -> dict[str, Any]:
        with self._follower.book() as book:
            lives, is_more = select(book, chosen, _ROWS, before)
        return {
            "lives": lives,
            "is_more": is_more,
            "problem": self._follower.problem,
            "now_ms": time.time() * 1000,
        }

    def list_changes(self, arguments: Mapping[str, str], since: int) -> Update | None:
        """Return the list when it has changed: the channel ``commands``."""
        version = self._follower.version
        if version <= since or version == 0:
            return None
        values = {**self._rows(CommandFilter.of(arguments)), "time_zone": arguments.get("time_zone", "UTC")}
        html = self._context.render("command_rows.html", values)
        return Update(version, {"command-rows": html})

    def life(self, request: PageRequest) -> Page:
        """Show one command with all its results."""
        command_id = request.path["command_id"]
        with self._follower.book() as book:
            life = book.get(command_id)
        values = {"command_id": command_id, "life": life, "now_ms": time.time() * 1000}
        return Page("command.html", f"Command {command_id}", values)

    def life_changes(self, arguments: Mapping[str, str], since: int) -> Update | None:
        """Return the life when it has changed: the channel ``command``."""
        with self._follower.book() as book:
            life = book.get(arguments.get("id", ""))
            if life is None or life.version <= since:
                return None
            version = life.version
            values = {
                "life": life,
                "now_ms": time.time() * 1000,
                "time_zone": arguments.get("time_zone", "UTC"),
            }
            html = self._context.render("command_life.html", values)
        return Update(version, {"command-life": html})
