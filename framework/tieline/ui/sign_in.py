"""Signing in: a user's name and password become a session."""

from __future__ import annotations

import base64


def credentials(name: str, password: str) -> bytes:
    """Return a header of basic authentication, which the authenticator of all interfaces verifies."""
    return b"Basic " + base64.b64encode(f"{name}:{password}".encode())


def safe_target(path: str, base: str) -> str:
    """Return the page to continue at: ``path`` if it is a page here, else the first one."""
    if path.startswith(f"{base}/") and path.isprintable() and "\\" not in path and "//" not in path:
        return path
    return f"{base}/"
