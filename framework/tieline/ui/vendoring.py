"""Refresh the vendored assets: ``python -m tieline.ui.vendoring`` (``make vendor``).

``static/vendor/vendor.json`` names each package, its version, licence and files with their SHA-256. The
packages come from the registry that npm is configured for; nothing is loaded from it when pages are served.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "static" / "vendor"
_LARGEST = 5 * 1024 * 1024


def refresh(folder: Path) -> None:
    """Download every package that ``vendor.json`` names, and write its files and their hashes."""
    listing = folder / "vendor.json"
    packages: list[dict[str, Any]] = json.loads(listing.read_text("utf-8"))
    for package in packages:
        with tempfile.TemporaryDirectory() as temporary:
            name = f"{package['name']}@{package['version']}"
            packed = subprocess.run(
                ["npm", "pack", "--silent", name], cwd=temporary, check=True, capture_output=True, text=True
            )
            with tarfile.open(Path(temporary) / packed.stdout.split()[-1]) as archive:
                for file in package["files"]:
                    member = archive.extractfile(file["from"])
                    assert member is not None, f"{name} has no file {file['from']}"
                    content = member.read(_LARGEST)
                    (folder / file["name"]).write_bytes(content)
                    file["sha256"] = hashlib.sha256(content).hexdigest()
    listing.write_text(json.dumps(packages, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    refresh(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
