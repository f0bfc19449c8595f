"""Reads the config store: the path of tieline, the worker's settings, and an entry for each connector."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

CONFIG = "config"
CONNECTORS = "connectors/"
_GRACE = "task.shutdown.graceful.timeout.ms"
_KNOWN = ("tieline", "worker", "environment")
# The worker gets only these variables, and not the platform's PYTHONPATH, VIRTUAL_ENV and keys.
_INHERITED = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")


class SettingsError(Exception):
    """The settings are invalid. The message has a line for each problem, without values."""


class NothingToRunError(SettingsError):
    """There is no configuration, or no connector in it, which may be intended."""


class Settings(NamedTuple):
    """The settings with which a worker is started."""

    tieline: str
    """The path of the program."""
    environment: dict[str, str]
    """Additional variables of the worker's environment."""
    worker: dict[str, Any]
    """The worker's settings, as a flat map."""
    connectors: dict[str, dict[str, Any]]
    """The settings of each connector by the name of its entry."""

    @property
    def grace(self) -> float:
        """How long a stop may take: the time of the tasks and 5 s for the worker, in seconds."""
        try:
            return float(self.worker.get(_GRACE, 5000)) / 1000 + 5
        except (TypeError, ValueError):
            return 10.0  # the worker will report the wrong value


def read(entries: Mapping[str, Any], data: Path) -> Settings:
    """Return the settings in these entries of the config store.

    ``data`` is the agent's folder for data. The worker keeps its log and spools there unless ``data.dir`` is
    set. Raises ``SettingsError`` with every problem, or ``NothingToRunError`` if there is nothing to start.
    """
    config = entries.get(CONFIG)
    if not config:
        raise NothingToRunError("the config store has no entry 'config'; store one with the path of tieline")
    if not isinstance(config, dict):
        raise SettingsError("config: is not a JSON object; store it with vctl config store --json")
    problems = [
        f"config: {key} is unknown; known are {', '.join(_KNOWN)}" for key in config if key not in _KNOWN
    ]
    worker, environment = (_object(config, key, problems) for key in ("worker", "environment"))
    tieline = config.get("tieline")
    if not (
        isinstance(tieline, str)
        and _is_text(tieline)
        and os.path.isabs(tieline)
        and os.access(tieline, os.X_OK)
    ):
        problems.append(
            "config: tieline must be the absolute path of the program, such as /opt/tieline/bin/tieline"
        )
    problems += [
        f"config: environment: {key!r} must be a name without '=', and text without NUL"
        for key, value in environment.items()
        if not (_is_text(key) and key and "=" not in key and _is_text(value))
    ]
    connectors = {}
    for name, entry in sorted(entries.items()):
        if name.startswith(CONNECTORS):
            connectors[name] = _connector(name, entry, problems)
        elif name != CONFIG:
            problems.append(f"{name}: is unknown; entries are 'config' and 'connectors/NAME'")
    if problems:
        raise SettingsError("\n".join(problems))
    if not connectors:
        raise NothingToRunError(
            "the config store has no entry 'connectors/NAME'; store one for each connector"
        )
    # The agent reads one line of JSON for each event.
    worker = {"data.dir": str(data / "worker"), **worker, "log.format": "json"}
    return Settings(str(tieline), environment, worker, connectors)


def _is_text(value: Any) -> bool:
    """Return whether a program can receive the text: no NUL, no half of a surrogate pair."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(config: Mapping[str, Any], key: str, problems: list[str]) -> dict[str, Any]:
    value = config.get(key, {})
    if isinstance(value, dict):
        return value
    problems.append(f"config: {key} must be an object")
    return {}


def _connector(name: str, entry: Any, problems: list[str]) -> dict[str, Any]:
    if not isinstance(entry, dict):
        problems.append(f"{name}: is not a JSON object; store it with vctl config store --json")
        return {}
    if isinstance(entry.get("config"), dict):
        name_setting = {"name": entry["name"]} if "name" in entry else {}
        entry = {**entry["config"], **name_setting}
    return {"name": name.removeprefix(CONNECTORS), **entry}


class Launch:
    """A folder with the files of a worker; only its owner can read it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, settings: Settings) -> None:
        """Write the settings, and replace earlier ones."""
        self.remove()
        self.folder.mkdir(mode=0o700, parents=True)
        for name, content in (
            ("settings.json", {**settings._asdict()}),
            ("worker.json", settings.worker),
            *((_file(name), connector) for name, connector in settings.connectors.items()),
        ):
            descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)

    def read(self) -> Settings | None:
        """Return the stored settings, or ``None``."""
        try:
            return Settings(**json.loads((self.folder / "settings.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def remove(self) -> None:
        """Remove the folder if it exists."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def replace(self, other: Launch) -> None:
        """Move this folder to the path of another one."""
        other.remove()
        self.folder.rename(other.folder)

    def command(self, settings: Settings, *options: str) -> list[str]:
        """Return the command that runs a worker with these settings."""
        files = ["worker.json", *map(_file, settings.connectors)]
        return [settings.tieline, "run", *options, *(str(self.folder / file) for file in files)]

    def with_entry_names(self, text: str) -> str:
        """Return a text in which entries of the config store replace the names of our files."""
        text = text.replace(f"{self.folder / 'worker.json'}", "config: worker")
        text = text.replace(f"{self.folder}/{_PREFIX}", CONNECTORS)
        return text.replace(".json", "")


_PREFIX = "connectors-"


def _file(name: str) -> str:
    return f"{_PREFIX}{quote(name.removeprefix(CONNECTORS), safe='')}.json"


def environment(settings: Settings, agent_environment: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's environment."""
    path = os.pathsep.join((str(Path(settings.tieline).parent), "/usr/local/bin", "/usr/bin", "/bin"))
    inherited = {name: agent_environment[name] for name in _INHERITED if name in agent_environment}
    return {"PATH": path, **inherited, **settings.environment}
