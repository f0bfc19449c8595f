"""The command sinks: their kill switches and audit logs."""

from __future__ import annotations

import shlex
from pathlib import Path

from tieline.api.pages import Page, PageError, PageRequest, Redirect
from tieline_connectors.command.pages.plants import Plants


class SinkPages:
    """The page of the command sinks. Safe for many threads."""

    def __init__(self, plants: Plants, data_dir: Path) -> None:
        """``data_dir``: the worker's folder, where the page suggests to keep users."""
        self._plants = plants
        self._users_file = data_dir.absolute() / "users"

    def show(self, request: PageRequest) -> Page:
        """Show all sinks; with ``?verify=1`` their audit logs are verified."""
        is_verified = request.query.get("verify") == "1"
        sinks = [
            {
                "plant": plant,
                "killed": plant.killed(),
                "remove": f"rm {shlex.quote(str(plant.config.kill_switch_file))}",
                "audit": plant.audit_state() if is_verified else None,
            }
            for plant in self._plants
        ]
        add_admin = ["tieline", "users", "add", request.viewer.name, str(self._users_file), "--role", "admin"]
        values = {"sinks": sinks, "add_admin": shlex.join(add_admin), "users_file": self._users_file}
        return Page("command_sinks.html", "Command sinks", values)

    def kill(self, request: PageRequest) -> Redirect:
        """Engage a kill switch."""
        reason = request.form.get("reason", "").strip()
        if not reason:
            raise PageError(400, "The kill switch was not engaged: give a reason")
        self._plants.named(request.form.get("sink", "")).kill(f"{request.viewer.name}: {reason}")
        return Redirect("/command-sinks")

    def release_switch(self, request: PageRequest) -> Redirect:
        """Release a kill switch."""
        self._plants.named(request.form.get("sink", "")).release_switch()
        return Redirect("/command-sinks")
