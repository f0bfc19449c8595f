"""Base images from Debian's packages, for a machine that cannot pull the published ones."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from tieline_lab.cache import cache_folder
from tieline_lab.engine import Engine, run
from tieline_lab.process import ProcessError

PYTHON = "tieline-local/python:3.11"
JAVA = "tieline-local/java:17"

_KAFKA_DATA = 'install -d -o 10001 -g 10001 "$1/var/lib/kafka/data"'
_SETTINGS = ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
"""Of this machine, so that what is installed inside comes from where it comes from outside."""


def make(engine: Engine, say: Callable[[str], None]) -> None:
    """Make both, where the engine has them not: about 20 s and 40 s."""
    _make(engine, say, PYTHON, ["python3", "python3-venv", "ca-certificates"])
    _make(engine, say, JAVA, ["openjdk-17-jre-headless"], _KAFKA_DATA)


def _make(
    engine: Engine, say: Callable[[str], None], name: str, packages: Sequence[str], then: str = "true"
) -> None:
    try:
        engine.docker("image", "inspect", name)
    except ProcessError:
        say(f"making the image {name} from Debian's packages")
    else:
        return
    tar = cache_folder() / "docker" / "base.tar"
    tar.parent.mkdir(parents=True, exist_ok=True)
    hooks = [f"--customize-hook={then}"]
    hooks += [f"--customize-hook=copy-in {shlex.quote(file)} {Path(file).parent}" for file in _SETTINGS
              if Path(file).exists()]  # fmt: skip
    options = ["--quiet", "--variant=minbase", f"--include={','.join(packages)}", *hooks]
    run(["mmdebstrap", *options, "bookworm", str(tar)], engine.environment)
    engine.docker("import", tar, name)
    tar.unlink()
