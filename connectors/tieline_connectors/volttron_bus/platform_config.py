"""The settings that every connector of a VOLTTRON platform has: where it is, and who we are there."""

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

_ADDRESS = re.compile(r"tcp://[^\s?#]+:\d{1,5}|ipc://[^\s?#]+")


class PlatformConfig(Config):
    """A connection to a platform's router. Keys come from settings, or from files of its home."""

    address: str = setting(
        "volttron.address",
        doc="The platform: tcp://host:port, ipc:///path or ipc://@/path.",
        importance="high",
    )
    platform: str = setting(
        "platform.name",
        pattern=r"\S",
        doc="The platform's name: part of every record that is read from it, and the mark on messages"
        " published to it. All connectors of one platform must use the same name, those of two "
        "platforms different ones.",
        importance="high",
    )
    identity: str = setting(
        "volttron.identity",
        "",
        doc="The identity on the bus, which lets in one connection. Empty: tieline.<connector>.",
    )
    serverkey: str = setting(
        "volttron.serverkey",
        "",
        doc="The platform's public CURVE key, z85 (40 characters) or VOLTTRON's url-safe base64 (43).",
    )
    publickey: str = setting(
        "volttron.publickey",
        "",
        doc="The connector's public CURVE key. Empty: it follows from the secret one.",
    )
    secretkey: Secret = setting(
        "volttron.secretkey",
        Secret(""),
        doc="The connector's secret CURVE key, z85 or base64. Empty: a new pair at each start, which "
        "2.x lets in.",
    )
    credentials_file: PathText = setting(
        "volttron.credentials.file",
        "",
        doc="The connector's keys as a file of the home's credentials_store, instead of the two "
        "settings before.",
    )
    server_credentials_file: PathText = setting(
        "volttron.server.credentials.file",
        "",
        doc="The home's credentials_store/platform.json, instead of volttron.serverkey.",
    )

    def problems(self) -> list[tuple[str, str]]:
        """What is wrong between these settings, and in the form of one."""
        wrong = [
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
            wrong.append(("volttron.address", message))
        for one, other in (
            ("volttron.serverkey", "volttron.server.credentials.file"),
            ("volttron.secretkey", "volttron.credentials.file"),
        ):
            if self._given(one) and self._given(other):
                wrong.append((other, f"says the same as {one}; give one of the two"))
        own = [key for key in ("volttron.secretkey", "volttron.credentials.file") if self._given(key)]
        if own and not (self.serverkey or self.server_credentials_file):
            wrong.append(
                (own[0], "is of no use without volttron.serverkey or volttron.server.credentials.file")
            )
        if self.publickey and not own:
            wrong.append(("volttron.publickey", "is of no use without volttron.secretkey"))
        return wrong

    def file_problems(self) -> list[tuple[str, str]]:
        """Return what is wrong with the files that are named here."""
        checks = (
            ("volttron.credentials.file", self.own_keys),
            ("volttron.server.credentials.file", self.server_key),
        )
        return [
            (key, message) for key, check in checks if self._given(key) and (message := error_message(check))
        ]

    def own_keys(self) -> tuple[bytes, bytes]:
        """Our public and secret key; a new pair where none is given. Raises ``ValueError``."""
        if self.credentials_file:
            return tuple(_stored(self.credentials_file, "publickey", "secretkey"))  # type: ignore[return-value]
        public = parse_curve_key(self.publickey) if self.publickey else None
        return complete_key_pair(public, parse_curve_key(self._secret()) if self._secret() else None)

    def server_key(self) -> bytes | None:
        """The platform's key, none where its authentication is off. Raises ``ValueError``."""
        if self.server_credentials_file:
            return _stored(self.server_credentials_file, "publickey", address=self.address)[0]
        return parse_curve_key(self.serverkey) if self.serverkey else None

    def endpoint(self, connector: str) -> Endpoint:
        """Where to connect, and as whom; reads the files of keys. Raises ``ValueError``."""
        identity = self.identity or f"tieline.{connector}"
        server = self.server_key()
        if server is None:
            return Endpoint(self.address, identity)
        made = not (self.credentials_file or self._secret())
        keys = CurveKeys(*self.own_keys(), serverkey=server, made=made)
        return Endpoint(self.address, identity, keys, self._keys_from(made))

    def _keys_from(self, made: bool) -> str:
        own = "a new pair of our own" if made else f"our own of {self.credentials_file or 'the settings'}"
        return f"the platform's key of {self.server_credentials_file or 'the settings'}, and {own}"

    def _given(self, key: str) -> bool:
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


def error_message(check: Callable[[], object]) -> str:
    """What a check raises as a text for the person who configures; empty if it raises nothing."""
    try:
        check()
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def is_latin(text: str) -> bool:
    """Whether the text can stand in a topic of the bus (ISO-8859-1)."""
    return all(ord(character) < 256 for character in text)


def _address_problem(address: str) -> str:
    """Return why no platform can be at this address; empty: one can."""
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


def _stored(file: str, *names: str, address: str = "") -> list[bytes]:
    try:
        return [read_stored_key(Path(file), name, address) for name in names]
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{file} {error}") from None
