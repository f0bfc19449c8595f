"""Settings that the connectors of a VOLTTRON platform share: its address, our identity and keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tieline.api import Config, Secret, setting
from tieline.api.config import PathText
from tieline_connectors.volttron_bus.vip.connection import Endpoint
from tieline_connectors.volttron_bus.vip.credentials import (
    CurveKeys,
    complete_key_pair,
    parse_curve_key,
    read_stored_key,
)
from tieline_connectors.volttron_bus.vip.frames import check_text
from tieline_connectors.volttron_bus.vip.reconnect import ReconnectState

_ADDRESS = re.compile(r"tcp://[^\s?#]+:\d{1,5}|ipc://[^\s?#]+")


class PlatformConfig(Config):
    """A connection to a platform's router. Keys come from settings, or from files of VOLTTRON_HOME."""

    address: str = setting(
        "volttron.address",
        doc="The platform: tcp://host:port, ipc:///path or ipc://@/path.",
        importance="high",
    )
    platform: str = setting(
        "platform.name",
        pattern=r"\S",
        doc="The platform's name. Every record that is read from the platform has it, and every message that "
        "is published there is marked with it. All connectors of one platform must use the same name; "
        "connectors of different platforms must use different names.",
        importance="high",
    )
    identity: str = setting(
        "volttron.identity",
        "",
        doc="The identity on the bus. The router accepts one connection per identity. Empty: "
        "tieline.<connector>.",
    )
    serverkey: str = setting(
        "volttron.serverkey",
        "",
        doc="The platform's public CURVE key, z85 (40 characters) or VOLTTRON's url-safe base64 (43).",
    )
    publickey: str = setting(
        "volttron.publickey",
        "",
        doc="The connector's public CURVE key. Empty: it is derived from the secret key.",
    )
    secretkey: Secret = setting(
        "volttron.secretkey",
        Secret(""),
        doc="The connector's secret CURVE key, z85 or base64. Empty: a new pair at each start, which "
        "VOLTTRON 2.x accepts.",
    )
    credentials_file: PathText = setting(
        "volttron.credentials.file",
        "",
        doc="A file of VOLTTRON_HOME/credentials_store with the connector's keys, instead of "
        "volttron.publickey and volttron.secretkey.",
    )
    server_credentials_file: PathText = setting(
        "volttron.server.credentials.file",
        "",
        doc="VOLTTRON_HOME/credentials_store/platform.json, instead of volttron.serverkey.",
    )

    def problems(self) -> list[tuple[str, str]]:
        """Return every key with a wrong value or a conflict, each with the problem."""
        problems = [
            (key, message)
            for key, check in (
                ("volttron.identity", lambda: self.identity and check_text("identity", self.identity)),
                ("volttron.serverkey", lambda: self.serverkey and parse_curve_key(self.serverkey)),
                ("volttron.publickey", lambda: self.publickey and parse_curve_key(self.publickey)),
                ("volttron.secretkey", lambda: self._secret() and parse_curve_key(self._secret())),
            )
            if (message := error_message(check))
        ]
        if message := _address_problem(getattr(self, "address", "")):
            problems.append(("volttron.address", message))
        for setting_key, file_key in (
            ("volttron.serverkey", "volttron.server.credentials.file"),
            ("volttron.secretkey", "volttron.credentials.file"),
        ):
            if self._is_set(setting_key) and self._is_set(file_key):
                problems.append((file_key, f"says the same as {setting_key}; give one of the two"))
        secret_keys = [
            key for key in ("volttron.secretkey", "volttron.credentials.file") if self._is_set(key)
        ]
        if secret_keys and not (self.serverkey or self.server_credentials_file):
            problems.append(
                (
                    secret_keys[0],
                    "has no effect without volttron.serverkey or volttron.server.credentials.file",
                )
            )
        if self.publickey and not secret_keys:
            problems.append(("volttron.publickey", "has no effect without volttron.secretkey"))
        return problems

    def file_problems(self) -> list[tuple[str, str]]:
        """Return the problems of the files that these settings name."""
        checks = (
            ("volttron.credentials.file", self.client_keys),
            ("volttron.server.credentials.file", self.platform_key),
        )
        return [
            (key, message) for key, check in checks if self._is_set(key) and (message := error_message(check))
        ]

    def client_keys(self) -> tuple[bytes, bytes]:
        """Return our public and secret key, or a new pair if none is set. Raises ``ValueError``."""
        if self.credentials_file:
            return tuple(_read_keys(self.credentials_file, "publickey", "secretkey"))  # type: ignore[return-value]
        public = parse_curve_key(self.publickey) if self.publickey else None
        return complete_key_pair(public, parse_curve_key(self._secret()) if self._secret() else None)

    def platform_key(self) -> bytes | None:
        """Return the platform's key, or ``None`` if its authentication is off. Raises ``ValueError``."""
        if self.server_credentials_file:
            return _read_keys(self.server_credentials_file, "publickey", address=self.address)[0]
        return parse_curve_key(self.serverkey) if self.serverkey else None

    def endpoint(self, connector: str) -> Endpoint:
        """Return the address with our identity and keys; reads the key files. Raises ``ValueError``."""
        identity = self.identity or f"tieline.{connector}"
        platform_key = self.platform_key()
        if platform_key is None:
            return Endpoint(self.address, identity)
        is_generated = not (self.credentials_file or self._secret())
        keys = CurveKeys(*self.client_keys(), serverkey=platform_key, is_generated=is_generated)
        return Endpoint(self.address, identity, keys, self._keys_from(is_generated))

    def _keys_from(self, is_generated: bool) -> str:
        client = f"our own of {self.credentials_file or 'the settings'}"
        if is_generated:
            client = "a new pair of our own"
        return f"the platform's key of {self.server_credentials_file or 'the settings'}, and {client}"

    def _is_set(self, key: str) -> bool:
        return bool(
            {
                "volttron.serverkey": self.serverkey,
                "volttron.server.credentials.file": self.server_credentials_file,
                "volttron.secretkey": self._secret(),
                "volttron.credentials.file": self.credentials_file,
            }[key]
        )

    def _secret(self) -> str:
        return self.secretkey.get_secret_value()


class BusConfig(PlatformConfig):
    """What source and sink of the bus share: how they reconnect after a loss."""

    reconnect_backoff_ms: int = setting(
        "reconnect.backoff.ms",
        100,
        ge=1,
        doc="The pause before the first attempt after a loss. It grows to a twentieth of the outage.",
    )
    reconnect_backoff_max_ms: int = setting(
        "reconnect.backoff.max.ms", 10_000, ge=1, doc="The longest pause."
    )

    def reconnect_state(self, connector: str) -> ReconnectState:
        """Return the state from which each connection starts. Raises ``ValueError`` on unreadable keys."""
        return ReconnectState(
            lambda: self.endpoint(connector),
            self.reconnect_backoff_ms / 1000,
            self.reconnect_backoff_max_ms / 1000,
        )


def error_message(check: Callable[[], object]) -> str:
    """Return the message of what a check raises; empty if it raises nothing."""
    try:
        check()
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def _address_problem(address: str) -> str:
    """Return why no platform can have this address; empty if one can."""
    port = re.match(r"tcp://.*:(\d+)$", address)
    if port and not 1 <= int(port[1]) <= 65_535:
        return "the port is not a number from 1 to 65535"
    if not _ADDRESS.fullmatch(address):
        return "must look like tcp://127.0.0.1:22916 or ipc:///path/vip.socket"
    path = address.partition("://")[2]
    if "$" in path or path.startswith(("~", "@~")):
        return (
            "variables such as $VOLTTRON_HOME and ~ are not expanded in an address. Write the path in full, "
            "such as ipc://@/home/volttron/.volttron/run/vip.socket"
        )
    if address.startswith("ipc://") and not path.startswith(("/", "@")):
        return f"{path!r} is a relative path. Write it in full, such as ipc:///home/volttron/run/vip.socket"
    return ""


def _read_keys(file: str, *names: str, address: str = "") -> list[bytes]:
    try:
        return [read_stored_key(Path(file), name, address) for name in names]
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{file} {error}") from None
