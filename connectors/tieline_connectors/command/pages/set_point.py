"""Set a point: the form, the policy's answer, and the sending of exactly what was checked."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from itertools import islice
from urllib.parse import quote

from tieline.api.pages import Page, PageContext, PageError, PageRequest, Redirect
from tieline_connectors.command.model.point import split
from tieline_connectors.command.pages.follower import CommandFollower
from tieline_connectors.command.pages.form import SetForm, canonical_point, limits_of
from tieline_connectors.command.pages.plant import CheckedCommand, CommandPlant
from tieline_connectors.command.pages.plants import Plants
from tieline_connectors.points.names import point_id, point_text
from tieline_connectors.points.questions import PointName


class SetPointPage:
    """The page that sets a point. Safe for many threads."""

    def __init__(self, context: PageContext, plants: Plants, follower: CommandFollower) -> None:
        self._context = context
        self._plants = plants
        self._follower = follower

    def show(self, request: PageRequest) -> Page:
        """Show the form for a point."""
        plant, point = self._plants.find(request.query.get("point", ""), request.query.get("sink", ""))
        form = SetForm(point=canonical_point(point), command_id=str(uuid.uuid4()))
        return self._set_page(request, plant, form)

    def check(self, request: PageRequest) -> Page:
        """Show what the policy says. Nothing is sent."""
        plant = self._plants.named(request.form.get("sink", ""))
        form = _parse_form(request.form)
        try:
            checked = plant.check(form, request.viewer.name)
        except ValueError as error:
            return self._set_page(request, plant, form, problem=str(error), status=400)
        if checked.rejection is not None:
            problem = f"{checked.rejection.code}: {checked.rejection.reason}"
            return self._set_page(request, plant, form, problem=problem)
        return self._set_page(request, plant, form, allowed=checked)

    def send(self, request: PageRequest) -> Redirect:
        """Send the command, and show its life."""
        plant = self._plants.named(request.form.get("sink", ""))
        form = _parse_form(request.form)
        try:
            checked = plant.check(form, request.viewer.name)
        except ValueError as error:
            raise PageError(400, f"Nothing was sent: {error}") from error
        return send_checked(plant, checked, request)

    def _set_page(
        self,
        request: PageRequest,
        plant: CommandPlant,
        form: SetForm,
        *,
        problem: str = "",
        allowed: CheckedCommand | None = None,
        status: int = 200,
    ) -> Page:
        rule = plant.rule(plant.policy(), request.viewer.name, form)
        with self._follower.book() as book:
            recent = list(islice(book.of_point(form.point), 5)) if form.point else []
            holds = [life for life in book.holds() if form.point in life.points]
        values = {
            "plant": plant,
            "form": form,
            "rule": rule,
            "limits": limits_of(rule),
            "killed": plant.killed(),
            "problem": problem,
            "is_allowed": allowed is not None,
            "is_protected": allowed is not None and bool(allowed.protected),
            "recent": recent,
            "live": self._live(plant, form.point),
            "holds": holds,
            "now_ms": time.time() * 1000,
        }
        return Page("command_set.html", f"Set {form.point}", values, status)

    def _live(self, plant: CommandPlant, point: str) -> Mapping[str, str]:
        """Return how the page shows the point's value now; empty if no page has values."""
        if not point or not self._context.has_page("/points"):
            return {}
        device, name = split(point)
        known = PointName(plant.platform, device, name)
        return {"id": point_id(known), "text": point_text(known)}


def send_checked(plant: CommandPlant, checked: CheckedCommand, request: PageRequest) -> Redirect:
    """Send what the policy allows and the person has confirmed."""
    if checked.rejection is not None:
        raise PageError(403, f"Nothing was sent: {checked.rejection.code}: {checked.rejection.reason}")
    confirmed = canonical_point(request.form.get("confirmed", "").strip())
    if checked.protected and confirmed != checked.protected[0]:
        point = checked.protected[0]
        raise PageError(400, f"Nothing was sent: {point} is protected. Type its name to confirm it")
    plant.send(checked)
    return Redirect(f"/commands/{quote(checked.command_id, safe='')}")


def _parse_form(fields: Mapping[str, str]) -> SetForm:
    try:
        return SetForm.of(fields)
    except ValueError as error:
        raise PageError(400, f"Nothing was sent: {error}") from error
