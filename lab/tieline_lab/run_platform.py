"""``python -m tieline_lab.run_platform FOLDER``: a VOLTTRON 2.x platform and its driver, until SIGTERM.

What the compose stack's container runs. It ends by itself, with an error, when one of the two ends: whoever
started it is to start it again.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tieline_lab.driver import DriverSettings
from tieline_lab.observer import Observer
from tieline_lab.process import ProcessError
from tieline_lab.vip import VipError
from tieline_lab.volttron import VolttronPlatform

CLIENTS = ("tieline", "tieline.cloud", "tieline.command", "tieline.way-back")
"""Who gets its keys: the connectors of the lab."""


def run(
    folder: Annotated[Path, typer.Argument(help="VOLTTRON_HOME and the logs; kept from run to run.")],
    listen: Annotated[str, typer.Option(help="Where the router listens.")] = "tcp://127.0.0.1:22916",
    keys: Annotated[Path | None, typer.Option(help="Gets the keys that the connectors need.")] = None,
    ready: Annotated[Path, typer.Option(help="This file is there while all is up.")] = Path(
        "/tmp/volttron-ready"
    ),
    seen: Annotated[Path | None, typer.Option(help="Gets a line for each message seen on the bus.")] = None,
    devices: Annotated[int, typer.Option(min=1, max=200)] = 3,
    interval: Annotated[int, typer.Option(min=1, max=3600, help="Seconds from reading to reading.")] = 1,
) -> None:
    """Run a platform with moving points in the foreground."""
    ready.unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    platform = VolttronPlatform(folder, "2", DriverSettings(devices, interval), _say, address=listen)
    try:
        platform.start()
        if keys is not None:
            give_keys(platform.home / "credentials_store", keys, CLIENTS)
        with Observer(platform.connect("observer")) as observer:
            platform.start_driver()
            ready.touch()
            _say(f"the platform answers at {listen}; its {devices} devices are read every {interval} s")
            _watch(platform, observer, seen)
    except (ProcessError, VipError) as error:
        _say(f"failed: {error}")
        sys.exit(1)
    finally:
        ready.unlink(missing_ok=True)
        platform.stop()


def give_keys(store: Path, to: Path, identities: Sequence[str]) -> None:
    """Copy what clients need out of a ``credentials_store``: their own keys, the platform's public one."""
    for name in identities:
        _write(to / f"{name}.json", json.loads((store / f"{name}.json").read_text("utf-8")))
    server = json.loads((store / "platform.json").read_text("utf-8"))
    _write(to / "platform.json", {"publickey": server["publickey"]})


def _watch(platform: VolttronPlatform, observer: Observer, seen: Path | None) -> None:
    while platform.platform.running and platform.driver.running:
        observer.collect(0.5)
        if seen is not None and observer.seen:
            with seen.open("a", encoding="utf-8") as lines:
                lines.writelines(json.dumps(message) + "\n" for message in observer.seen.elements())
        observer.seen.clear()
        observer.came_back.clear()
    ended = platform.driver if platform.platform.running else platform.platform
    raise ProcessError(f"{ended.name} ended with status {ended.status}{ended.last_lines()}")


def _write(file: Path, content: dict[str, str]) -> None:
    file.touch(0o600)
    file.write_text(json.dumps(content), "utf-8")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(run)
