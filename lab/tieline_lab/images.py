"""Base images from Debian's packages, for a machine that cannot pull the published ones."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from tieline_lab.cache import cache_folder
from tieline_lab.engine import Engine
from tieline_lab.process import ProcessError, run

PYTHON = "tieline-local/python:3.11"
JAVA = "tieline-local/java:17"

_KAFKA_DATA = 'install -d -o 10001 -g 10001 "$1/var/lib/kafka/data"'
_SETTINGS = ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
"""Files of this machine, so that an image installs its packages from the same index as this machine."""


def build(engine: Engine, say: Callable[[str], None]) -> None:
    """Build both images unless the engine has them: about 20 s and 40 s."""
    _build(engine, say, PYTHON, ["python3", "python3-venv", "ca-certificates"])
    _build(engine, say, JAVA, ["openjdk-17-jre-headless"], _KAFKA_DATA)


def _build(
    engine: Engine, say: Callable[[str], None], name: str, packages: Sequence[str], hook: str = "true"
) -> None:
    try:
        engine.docker("image", "inspect", name)
    except ProcessError:
        say(f"building the image {name} from Debian's packages")
    else:
        return
    tar = cache_folder() / "docker" / "base.tar"
    tar.parent.mkdir(parents=True, exist_ok=True)
    hooks = [f"--customize-hook={hook}"]
    hooks += [f"--customize-hook=copy-in {shlex.quote(file)} {Path(file).parent}" for file in _SETTINGS
              if Path(file).exists()]  # fmt: skip
    options = ["--quiet", "--variant=minbase", f"--include={','.join(packages)}", *hooks]
    run(["mmdebstrap", *options, "bookworm", str(tar)], engine.environment)
    engine.docker("import", tar, name)
    tar.unlink()
