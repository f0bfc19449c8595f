"""Jars from a Maven repository."""

from __future__ import annotations

from pathlib import Path

from tieline_lab.process import run


def fetch_jars(pom: Path, folder: Path, *options: str) -> None:
    """Copy the jars that a POM names into ``folder``. Raises ``ProcessError``."""
    command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
    run([*command, f"-DoutputDirectory={folder}", *options])
