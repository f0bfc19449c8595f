"""The settings of an HTTP listener: its address, its users, TLS and limits.

This module imports no HTTP framework, so that a worker which serves nothing does not pay for one.
"""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path

from tieline.api import Config, setting
from tieline.http.users import Account, UsersFileError, read_users


class ListenerConfig(Config):
    """Where a server listens, and who may use it. A subclass gives ``listen`` a default."""

    listen: str = setting("listen", doc="Address and port; by default only this machine can connect.")
    users_file: Path | None = setting(
        "users.file",
        None,
        doc="Users with their roles and password hashes, written by `tieline users add`.",
    )
    certificate: Path | None = setting(
        "ssl.certificate.location", None, doc="PEM file of a certificate; with it the server speaks HTTPS."
    )
    key: Path | None = setting(
        "ssl.key.location", None, doc="PEM file of the certificate's key, without a passphrase."
    )
    max_request_bytes: int = setting("max.request.bytes", 1_000_000, ge=1000, doc="The largest request body.")
    max_connections: int = setting(
        "max.connections",
        500,
        ge=1,
        le=100_000,
        doc="At this limit a new connection closes the one whose client has kept the server waiting longest.",
    )

    def problems(self) -> list[tuple[str, str]]:
        """Return what is wrong with the address, the users file and the certificate."""
        return [*self._address_problems(), *self._users_problems(), *self._tls_problems()]

    def address(self) -> tuple[str, int]:
        """Return host and port. Raises ``ValueError``."""
        host, _, port = self.listen.rpartition(":")
        if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"{self.listen!r} is not HOST:PORT")
        return host.strip("[]"), int(port)

    def accounts(self) -> list[Account] | None:
        """Read the users file; ``None`` if no file is set. Raises ``OSError``, ``UsersFileError``."""
        return None if self.users_file is None else read_users(self.users_file)

    def _address_problems(self) -> list[tuple[str, str]]:
        try:
            host, _ = self.address()
        except ValueError as error:
            return [("listen", str(error))]
        if self.users_file is None and not _is_loopback(host):
            message = (
                f"other machines can reach {self.listen}, and users.file is not set. Create a users file with"
                " `tieline users add` and set users.file, or listen on 127.0.0.1"
            )
            return [("listen", message)]
        return []

    def _users_problems(self) -> list[tuple[str, str]]:
        try:
            self.accounts()
        except OSError as error:
            message = (
                f"{self.users_file} cannot be read: {error.strerror}. Create it with `tieline users add`"
            )
            return [("users.file", message)]
        except UsersFileError as error:
            return [("users.file", str(error))]
        return []

    def _tls_problems(self) -> list[tuple[str, str]]:
        if (self.certificate is None) != (self.key is None):
            message = "ssl.certificate.location and ssl.key.location must be set together"
            return [("ssl.key.location", message)]
        if self.certificate is not None:
            try:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.certificate, self.key, lambda: "")
            except (OSError, ValueError) as error:
                return [("ssl.certificate.location", f"{type(error).__name__}: {error}")]
        return []


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # the name of a host, which may resolve to any address
        return False
