"""What the config store says: where tieline is, the worker's settings, and a connector an entry."""

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
# The worker's environment is made of these alone: the platform's PYTHONPATH, VIRTUAL_ENV and keys stay here.
_PASSED_ON = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")


class SettingsError(Exception):
    """Why these settings are not taken: every problem, a line each; no value is shown."""


class NothingToRun(SettingsError):
    """There is no configuration, or no connector in it: somebody's wish, not a problem."""


class Settings(NamedTuple):
    """What a worker is started with."""

    tieline: str
    """The program."""
    environment: dict[str, str]
    """Variables of the worker's environment, beside the few that it always has."""
    worker: dict[str, Any]
    """Its settings, flat."""
    connectors: dict[str, dict[str, Any]]
    """Those of each connector, by its entry's name."""

    @property
    def grace(self) -> float:
        """Seconds that a stop may take: what the worker gives its tasks, and some for itself."""
        try:
            return float(self.worker.get(_GRACE, 5000)) / 1000 + 5
        except (TypeError, ValueError):
            return 10.0  # the worker will say what is wrong with it


def read(entries: Mapping[str, Any], data: Path) -> Settings:
    """The settings in these entries of the config store.

    Raises ``SettingsError`` with every problem, ``NothingToRun`` where there is none but nothing to start.

    ``data``: the agent's folder for data; the worker keeps its log and spools in it, unless told otherwise.
    """
    config = entries.get(CONFIG)
    if not config:
        raise NothingToRun("the config store has no entry 'config'; store one with the path of tieline")
    if not isinstance(config, dict):
        raise SettingsError("config: is no JSON object; store it with vctl config store --json")
    wrong = [
        f"config: {key} is unknown; known are {', '.join(_KNOWN)}" for key in config if key not in _KNOWN
    ]
    worker, environment = (_object(config, key, wrong) for key in ("worker", "environment"))
    tieline = config.get("tieline")
    if not (
        isinstance(tieline, str)
        and _is_text(tieline)
        and os.path.isabs(tieline)
        and os.access(tieline, os.X_OK)
    ):
        wrong.append(
            "config: tieline must be the absolute path of the program, such as /opt/tieline/bin/tieline"
        )
    wrong += [
        f"config: environment: {key!r} must be a name without '=', and text without NUL"
        for key, value in environment.items()
        if not (_is_text(key) and key and "=" not in key and _is_text(value))
    ]
    connectors = {}
    for name, entry in sorted(entries.items()):
        if name.startswith(CONNECTORS):
            connectors[name] = _connector(name, entry, wrong)
        elif name != CONFIG:
            wrong.append(f"{name}: is unknown; entries are 'config' and 'connectors/NAME'")
    if wrong:
        raise SettingsError("\n".join(wrong))
    if not connectors:
        raise NothingToRun("the config store has no entry 'connectors/NAME'; store one for each connector")
    # One line of JSON an event is what the agent can read.
    worker = {"data.dir": str(data / "worker"), **worker, "log.format": "json"}
    return Settings(str(tieline), environment, worker, connectors)


def _is_text(value: Any) -> bool:
    """Text that a program can be given: no NUL, no half of a surrogate pair."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(config: Mapping[str, Any], key: str, wrong: list[str]) -> dict[str, Any]:
    found = config.get(key, {})
    if isinstance(found, dict):
        return found
    wrong.append(f"config: {key} must be an object")
    return {}


def _connector(name: str, entry: Any, wrong: list[str]) -> dict[str, Any]:
    if not isinstance(entry, dict):
        wrong.append(f"{name}: is no JSON object; store it with vctl config store --json")
        return {}
    if isinstance(entry.get("config"), dict):
        named = {"name": entry["name"]} if "name" in entry else {}
        entry = {**entry["config"], **named}
    return {"name": name.removeprefix(CONNECTORS), **entry}


class Launch:
    """A folder with everything that a worker is started with; readable by its owner alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, settings: Settings) -> None:
        """Write the settings, in the place of what is there."""
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
        """The settings that were written; none if there are none."""
        try:
            return Settings(**json.loads((self.folder / "settings.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def remove(self) -> None:
        """Remove it, if it is there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def replace(self, other: Launch) -> None:
        """Take the place of another."""
        other.remove()
        self.folder.rename(other.folder)

    def command(self, settings: Settings, *options: str) -> list[str]:
        """The command that runs a worker with them."""
        files = ["worker.json", *map(_file, settings.connectors)]
        return [settings.tieline, "run", *options, *(str(self.folder / file) for file in files)]

    def told(self, text: str) -> str:
        """The text with the entries of the config store named in the place of our files."""
        text = text.replace(f"{self.folder / 'worker.json'}", "config: worker")
        text = text.replace(f"{self.folder}/{_PREFIX}", CONNECTORS)
        return text.replace(".json", "")


_PREFIX = "connectors-"


def _file(name: str) -> str:
    return f"{_PREFIX}{quote(name.removeprefix(CONNECTORS), safe='')}.json"


def environment(settings: Settings, own: Mapping[str, str]) -> dict[str, str]:
    """The worker's environment; ``own``: the agent's."""
    path = os.pathsep.join((str(Path(settings.tieline).parent), "/usr/local/bin", "/usr/bin", "/bin"))
    passed = {name: own[name] for name in _PASSED_ON if name in own}
    return {"PATH": path, **passed, **settings.environment}
