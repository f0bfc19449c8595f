"""``python -m tieline_lab.run_platform FOLDER`` runs a VOLTTRON 2.x platform and its driver until SIGTERM.

The container of the compose stack runs it. If the platform or the driver ends, it ends with an error, so that
the engine restarts the container.
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
"""The identities of the lab's connectors, which get their keys."""


def run(
    folder: Annotated[Path, typer.Argument(help="VOLTTRON_HOME and the logs; kept from run to run.")],
    listen: Annotated[str, typer.Option(help="Where the router listens.")] = "tcp://127.0.0.1:22916",
    keys: Annotated[Path | None, typer.Option(help="The folder for the connectors' keys.")] = None,
    ready: Annotated[Path, typer.Option(help="A file that exists while platform and driver run.")] = Path(
        "/tmp/volttron-ready"
    ),
    seen: Annotated[Path | None, typer.Option(help="A file for a line per message on the bus.")] = None,
    devices: Annotated[int, typer.Option(min=1, max=200, help="The number of devices.")] = 3,
    interval: Annotated[int, typer.Option(min=1, max=3600, help="Seconds between two readings.")] = 1,
) -> None:
    """Run a platform with moving points in the foreground."""
    ready.unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    platform = VolttronPlatform(folder, "2", DriverSettings(devices, interval), _say, address=listen)
    try:
        platform.start()
        if keys is not None:
            copy_keys(platform.home / "credentials_store", keys, CLIENTS)
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


def copy_keys(store: Path, target: Path, identities: Sequence[str]) -> None:
    """Copy from a ``credentials_store`` what clients need: their own keys and the platform's public key."""
    for name in identities:
        _write(target / f"{name}.json", json.loads((store / f"{name}.json").read_text("utf-8")))
    server = json.loads((store / "platform.json").read_text("utf-8"))
    _write(target / "platform.json", {"publickey": server["publickey"]})


def _watch(platform: VolttronPlatform, observer: Observer, seen: Path | None) -> None:
    while platform.platform.running and platform.driver.running:
        observer.collect(0.5)
        if seen is not None and observer.seen:
            with seen.open("a", encoding="utf-8") as lines:
                lines.writelines(json.dumps(message) + "\n" for message in observer.seen.elements())
        observer.seen.clear()
        observer.from_worker.clear()
    ended = platform.driver if platform.platform.running else platform.platform
    raise ProcessError(f"{ended.name} ended with status {ended.status}{ended.last_lines()}")


def _write(file: Path, content: dict[str, str]) -> None:
    file.touch(0o600)
    file.write_text(json.dumps(content), "utf-8")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(run)
