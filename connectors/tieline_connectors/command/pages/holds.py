"""The holds that last, and how one is released."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from tieline.api.pages import Page, PageContext, PageError, PageRequest, Redirect, Update
from tieline_connectors.command.pages.follower import CommandFollower
from tieline_connectors.command.pages.form import ReleaseForm
from tieline_connectors.command.pages.plants import Plants
from tieline_connectors.command.pages.set_point import send_checked


class HoldPages:
    """The list of holds. Safe for many threads; the event loop calls ``changes``."""

    def __init__(self, context: PageContext, plants: Plants, follower: CommandFollower) -> None:
        self._context = context
        self._plants = plants
        self._follower = follower

    def show(self, request: PageRequest) -> Page:
        """Show all holds."""
        values = {**self._values(), "can_release": request.viewer.may("operator")}
        return Page("holds.html", "Holds", values)

    def _values(self) -> dict[str, Any]:
        with self._follower.book() as book:
            return {"holds": book.holds(), "now_ms": time.time() * 1000, "problem": self._follower.problem}

    def changes(self, arguments: Mapping[str, str], since: int) -> Update | None:
        """Return the list when it has changed: the channel ``holds``."""
        version = self._follower.version
        if version <= since or version == 0:
            return None
        values = {**self._values(), "can_release": arguments.get("release") == "yes"}
        values["time_zone"] = arguments.get("time_zone", "UTC")
        return Update(version, {"hold-list": self._context.render("hold_list.html", values)})

    def release(self, request: PageRequest) -> Redirect:
        """Send the command that reverts the points of a hold."""
        command_id = request.form.get("command_id", "")
        with self._follower.book() as book:
            life = book.get(command_id)
            if life is None or life.hold_until is None:
                raise PageError(404, "This hold has ended")
            points, plant = life.held_points, self._plants.of_life(life)
        if plant is None:
            raise PageError(
                404, f"No command sink of this worker has executed {command_id}. Release it where it runs"
            )
        reason = request.form.get("reason", "").strip() or f"release of the hold of {command_id}"
        form = ReleaseForm(points, reason[:500], str(uuid.uuid4()))
        try:
            checked = plant.check_release(form, request.viewer.name)
        except ValueError as error:
            raise PageError(400, f"Nothing was sent: {error}") from error
        return send_checked(plant, checked, request)
