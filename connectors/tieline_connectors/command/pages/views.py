"""The pages about commands. A person's command is a command like any other: the policy decides."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any
from urllib.parse import quote

from tieline.api.pages import (
    Alarm,
    Channel,
    Page,
    PageContext,
    PageError,
    PageRequest,
    Pages,
    Redirect,
    Route,
    Update,
)
from tieline_connectors.command.model.point import split
from tieline_connectors.command.pages.follower import CommandFollower
from tieline_connectors.command.pages.form import ReleaseForm, SetForm, canonical_point, limits_of
from tieline_connectors.command.pages.listing import CommandFilter, select
from tieline_connectors.command.pages.lives import CommandLife
from tieline_connectors.command.pages.plant import (
    CheckedCommand,
    CommandPlant,
    is_clock_doubted,
    plants_of,
)
from tieline_connectors.points.names import point_id, point_text
from tieline_connectors.points.questions import PointName

_ROWS = 50
_ALARM_US = 3600 * 1_000_000
_CLOCK = (
    "The clock was set, and it is unknown which time is right: commands wait. Set the clock right; if it is,"
    " confirm it with tieline command clock trust AUDIT_FILE."
)


class CommandPages(Pages):
    """Set a point, follow commands, release holds, and stop everything with the kill switch."""

    title = "Commands"
    menu_position = 20

    def __init__(self, context: PageContext) -> None:
        super().__init__(context)
        self.plants = plants_of(context)
        self._first_seen: dict[str, int] = {}
        topics = {plant.topic for plant in self.plants} | {p.config.results_topic for p in self.plants}
        self.follower = CommandFollower(context, sorted(topics))

    def routes(self) -> Sequence[Route]:
        """Return the pages; none without a command sink."""
        if not self.plants:
            return ()
        return [
            Route("/commands", self._list, navigation="Commands"),
            Route("/commands/{command_id:path}", self._life),
            Route("/holds", self._holds, navigation="Holds"),
            Route("/holds/release", self._release, "POST"),
            Route("/set", self._form),
            Route("/set/check", self._check, "POST", personal=True),
            Route("/set", self._send, "POST"),
            Route("/command-sinks", self._sinks),
            Route("/command-sinks/kill", self._kill, "POST"),
            Route("/command-sinks/release", self._release_switch, "POST", role="admin"),
        ]

    def channels(self) -> Mapping[str, Channel]:
        """Return the channels of the list, of one command, and of the holds."""
        return {"commands": self._list_changes, "command": self._life_changes, "holds": self._hold_changes}

    def start(self) -> None:
        """Start to read the topics."""
        if self.plants:
            self.follower.start()

    def stop(self) -> None:
        """End reading."""
        if self.plants:
            self.follower.stop()

    def alarms(self) -> Sequence[Alarm]:
        """Return unpaid holds, unknown ends of the last hour, engaged kill switches, and clocks in doubt."""
        now = time.time_ns() // 1000
        alarms = []
        with self.follower.book() as book:
            for life in book.holds():
                if life.hold_problem:
                    text = f"A hold could not be ended: {life.hold_problem}. It is retried until it is."
                    alarms.append(_alarm("hold", life.command_id, "critical", life.points, text, life.at))
            for life in islice(book.newest(), 1000):
                end = life.end
                if end is not None and end["state"] == "UNKNOWN" and now - life.at < _ALARM_US:
                    text = "It is unknown whether a command was executed. Check the device."
                    alarms.append(_alarm("unknown", life.command_id, "critical", life.points, text, life.at))
        return [*alarms, *self._plant_alarms(now // 1000)]

    def _plant_alarms(self, now_ms: int) -> list[Alarm]:
        """Return what is abnormal about the sinks themselves, each since it was first seen."""
        ledgers = self.context.ledgers()
        alarms: list[Alarm] = []
        for plant in self.plants:
            if (reason := plant.killed()) is not None:
                text = f"The kill switch is engaged, and nothing is written: {reason}"
                alarms.append(self._since(f"kill.{plant.name}", "warning", plant.name, text, now_ms))
            if is_clock_doubted(ledgers.get(plant.name, {})):
                subject = f"clock of this computer ({plant.name})"
                alarms.append(self._since(f"clock.{plant.name}", "critical", subject, _CLOCK, now_ms))
        keys = {alarm.key for alarm in alarms}
        self._first_seen = {key: since for key, since in self._first_seen.items() if key in keys}
        return alarms

    def _since(self, key: str, severity: Any, subject: str, text: str, now_ms: int) -> Alarm:
        since_ms = self._first_seen.setdefault(key, now_ms)
        return Alarm(key, severity, subject, text, since_ms, "/command-sinks")

    # Set a point

    def _form(self, request: PageRequest) -> Page:
        plant, point = self._find(request.query.get("point", ""), request.query.get("sink", ""))
        form = SetForm(point=canonical_point(point), command_id=str(uuid.uuid4()))
        return self._set_page(request, plant, form)

    def _check(self, request: PageRequest) -> Page:
        plant = self._plant(request.form.get("sink", ""))
        form = _parse_form(request.form)
        try:
            checked = plant.check(form, request.viewer.name)
        except ValueError as error:
            return self._set_page(request, plant, form, problem=str(error), status=400)
        if checked.rejection is not None:
            problem = f"{checked.rejection.code}: {checked.rejection.reason}"
            return self._set_page(request, plant, form, problem=problem)
        return self._set_page(request, plant, form, allowed=checked)

    def _send(self, request: PageRequest) -> Redirect:
        plant = self._plant(request.form.get("sink", ""))
        form = _parse_form(request.form)
        try:
            checked = plant.check(form, request.viewer.name)
        except ValueError as error:
            raise PageError(400, f"Nothing was sent: {error}") from error
        return self._send_checked(plant, checked, request)

    def _send_checked(self, plant: CommandPlant, checked: CheckedCommand, request: PageRequest) -> Redirect:
        """Send what the policy allows and the person has confirmed."""
        if checked.rejection is not None:
            raise PageError(403, f"Nothing was sent: {checked.rejection.code}: {checked.rejection.reason}")
        confirmed = canonical_point(request.form.get("confirmed", "").strip())
        if checked.protected and confirmed != checked.protected[0]:
            point = checked.protected[0]
            raise PageError(400, f"Nothing was sent: {point} is protected. Type its name to confirm it")
        plant.send(checked)
        return Redirect(f"/commands/{quote(checked.command_id, safe='')}")

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
        with self.follower.book() as book:
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
        if not point or not self.context.has_page("/points"):
            return {}
        device, name = split(point)
        known = PointName(plant.platform, device, name)
        return {"id": point_id(known), "text": point_text(known)}

    # Follow commands

    def _list(self, request: PageRequest) -> Page:
        chosen = CommandFilter.of(request.query)
        values = {
            **self._rows(chosen, request.query.get("before", "")),
            "filter": chosen,
            "has_documents": self.context.has_page("/documents"),
        }
        return Page("commands.html", "Commands", values)

    def _rows(self, chosen: CommandFilter, before: str = "") -> dict[str, Any]:
        with self.follower.book() as book:
            lives, is_more = select(book, chosen, _ROWS, before)
        return {
            "lives": lives,
            "is_more": is_more,
            "problem": self.follower.problem,
            "now_ms": time.time() * 1000,
        }

    def _list_changes(self, arguments: Mapping[str, str], since: int) -> Update | None:
        version = self.follower.version
        if version <= since or version == 0:
            return None
        values = {**self._rows(CommandFilter.of(arguments)), "time_zone": arguments.get("time_zone", "UTC")}
        html = self.context.render("command_rows.html", values)
        return Update(version, {"command-rows": html})

    def _life(self, request: PageRequest) -> Page:
        command_id = request.path["command_id"]
        with self.follower.book() as book:
            life = book.get(command_id)
        values = {"command_id": command_id, "life": life, "now_ms": time.time() * 1000}
        return Page("command.html", f"Command {command_id}", values)

    def _life_changes(self, arguments: Mapping[str, str], since: int) -> Update | None:
        with self.follower.book() as book:
            life = book.get(arguments.get("id", ""))
            if life is None or life.version <= since:
                return None
            version = life.version
            values = {
                "life": life,
                "now_ms": time.time() * 1000,
                "time_zone": arguments.get("time_zone", "UTC"),
            }
            html = self.context.render("command_life.html", values)
        return Update(version, {"command-life": html})

    # Holds

    def _holds(self, request: PageRequest) -> Page:
        values = {**self._hold_values(), "can_release": request.viewer.may("operator")}
        return Page("holds.html", "Holds", values)

    def _hold_values(self) -> dict[str, Any]:
        with self.follower.book() as book:
            return {"holds": book.holds(), "now_ms": time.time() * 1000, "problem": self.follower.problem}

    def _hold_changes(self, arguments: Mapping[str, str], since: int) -> Update | None:
        version = self.follower.version
        if version <= since or version == 0:
            return None
        values = {**self._hold_values(), "can_release": arguments.get("release") == "yes"}
        values["time_zone"] = arguments.get("time_zone", "UTC")
        return Update(version, {"hold-list": self.context.render("hold_list.html", values)})

    def _release(self, request: PageRequest) -> Redirect:
        command_id = request.form.get("command_id", "")
        with self.follower.book() as book:
            life = book.get(command_id)
            if life is None or life.hold_until is None:
                raise PageError(404, "This hold has ended")
            points, plant = life.held_points, self._plant_of(life)
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
        return self._send_checked(plant, checked, request)

    def _plant_of(self, life: CommandLife) -> CommandPlant | None:
        """Return the sink that has executed a command; never another one, whose plant it would change."""
        platform = life.command.get("platform")
        return next(
            (each for each in self.plants if each.topic == life.topic and platform in (None, each.platform)),
            None,
        )

    # Kill switch and audit log

    def _sinks(self, request: PageRequest) -> Page:
        is_verified = request.query.get("verify") == "1"
        sinks = [
            {"plant": plant, "killed": plant.killed(), "audit": plant.audit_state() if is_verified else None}
            for plant in self.plants
        ]
        return Page("command_sinks.html", "Command sinks", {"sinks": sinks})

    def _kill(self, request: PageRequest) -> Redirect:
        reason = request.form.get("reason", "").strip()
        if not reason:
            raise PageError(400, "The kill switch was not engaged: give a reason")
        self._plant(request.form.get("sink", "")).kill(f"{request.viewer.name}: {reason}")
        return Redirect("/command-sinks")

    def _release_switch(self, request: PageRequest) -> Redirect:
        self._plant(request.form.get("sink", "")).release_switch()
        return Redirect("/command-sinks")

    def _plant(self, name: str) -> CommandPlant:
        plant = next((plant for plant in self.plants if plant.name == name), None)
        if plant is None:
            raise PageError(404, f"No command sink of this worker is called {name!r}")
        return plant

    def _find(self, text: str, name: str) -> tuple[CommandPlant, str]:
        """Return the sink and the point of ``<platform>/<path>``, or of a path alone."""
        if name:
            return self._plant(name), text
        for plant in self.plants:
            if text.startswith(f"{plant.platform}/"):
                return plant, text[len(plant.platform) + 1 :]
        return self.plants[0], text


def _parse_form(fields: Mapping[str, str]) -> SetForm:
    try:
        return SetForm.of(fields)
    except ValueError as error:
        raise PageError(400, f"Nothing was sent: {error}") from error


def _alarm(kind: str, command_id: str, severity: Any, points: Sequence[str], text: str, at: int) -> Alarm:
    path = f"/commands/{quote(command_id, safe='')}"
    return Alarm(f"{kind}.{command_id}", severity, ", ".join(points)[:200], text, at // 1000, path)
