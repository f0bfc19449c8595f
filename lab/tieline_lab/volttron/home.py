"""A VOLTTRON home that is written offline, so that the platform skips its own set-up, which needs an index.

2.x and 10.x keep keys and rights in different places; everything else is the same.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

import zmq
from zmq.utils import z85

from tieline_lab.cache import FILES
from tieline_lab.driver import DriverSettings

Generation = Literal["2", "10"]

IDENTITIES = (
    "platform.driver",
    "platform.actuator",
    "platform.historian",
    "tieline",
    "tieline.backfill",
    "tieline.cloud",
    "tieline.command",
    "tieline.way-back",
    "observer",
    "lab",
    "spare1",
    "spare2",
    "spare3",
)
"""The identities that may connect. 2.x also accepts unknown ones, but answers their calls with errors."""


class VolttronHome:
    """The folder ``VOLTTRON_HOME`` of one platform, and what its agents read beside it."""

    def __init__(self, work: Path, generation: Generation, address: str) -> None:
        self.path = work / "home"
        self.python = work / "python"
        self.write_log = work / "writes.jsonl"
        self._generation = generation
        self._address = address

    def create(self, settings: DriverSettings) -> None:
        """Write all files. The driver's configuration is replaced; keys that exist are kept."""
        (self.path / "configuration_store").mkdir(parents=True, exist_ok=True)
        self._write_config()
        for identity in (*IDENTITIES, "platform"):
            self._create_keys(identity)
        if self._generation == "2":
            self._write_rights_2()
        else:
            self._write_rights_10()
        store = self.path / "configuration_store" / "platform.driver.store"
        store.write_text(json.dumps(settings.store(self.write_log)))
        interface = self.python / "volttron" / "driver" / "interfaces" / "lab"
        interface.mkdir(parents=True, exist_ok=True)
        shutil.copy(FILES / "volttron_device.py", interface / "device.py")
        shutil.copy(FILES / f"volttron_{self._generation}_driver.py", interface / "lab.py")

    @property
    def local_address(self) -> str:
        """The router's address for agents on this machine."""
        # Abstract socket names are limited to 107 bytes; the platform's own choice holds the whole path.
        return f"ipc://@tieline-lab-{self._address.rsplit(':', 1)[1]}"

    def keys(self, identity: str) -> dict[str, str]:
        """Return the three CURVE keys with which an identity connects, in z85."""
        pair, server = self._read_keys(identity), self._read_keys("platform")
        keys = {"publickey": pair["public"], "secretkey": pair["secret"], "serverkey": server["public"]}
        return {name: _to_z85(key) for name, key in keys.items()}

    def historian_config(self) -> str:
        """Return the configuration of the SQLite historian, as JSON."""
        database = str(self.path.parent / "historian.sqlite")
        return json.dumps({"connection": {"type": "sqlite", "params": {"database": database}}})

    def agent_environment(self, identity: str, config: str | None = None) -> dict[str, str]:
        """Return the environment variables that an agent's program reads. ``config``: its settings, JSON."""
        file = self.path / f"{identity}.config"
        if config is not None or self._generation == "10":
            file.write_text(config or "{}")
        common = {
            "VOLTTRON_HOME": str(self.path),
            "AGENT_VIP_IDENTITY": identity,
            "PYTHONPATH": str(self.python),
        }
        if self._generation == "2":
            return {
                **common,
                "AGENT_CREDENTIALS": str(self._keys_file(identity)),
                "AGENT_CONFIG": "" if config is None else str(file),
            }
        pair = self._read_keys(identity)
        keys = {"AGENT_PUBLICKEY": pair["public"], "AGENT_SECRETKEY": pair["secret"]}
        keys |= {
            "VOLTTRON_SERVERKEY": self._read_keys("platform")["public"],
            "VOLTTRON_VIP_ADDR": self._address,
        }
        return {**common, **keys, "AGENT_CONFIG": str(file)}

    def _write_config(self) -> None:
        local = self.local_address
        if self._generation == "2":
            lines = [f"address = {self._address}", f"local-address = {local}", "messagebus = zmq"]
            lines += [
                "auth-enabled = True",
                "agent-isolation-mode = False",
                "server-messagebus-id = vip.server",
            ]
            # A project that exists keeps the platform from resolving packages over the network.
            python = ".".join(map(str, sys.version_info[:2]))
            (self.path / "pyproject.toml").write_text(
                '[tool.poetry]\nname = "volttron"\nversion = "0.1.0"\ndescription = ""\nauthors = []\n'
                f'package-mode = false\n\n[tool.poetry.dependencies]\npython = "~{python}"\n'
            )
        else:
            lines = [f"vip-address = {self._address}", f"vip-local-address = {local}", "message-bus = zmq"]
        (self.path / "config").write_text("\n".join(["[volttron]", "instance-name = lab", *lines, ""]))

    def _keys_file(self, identity: str) -> Path:
        if self._generation == "2":
            return self.path / "credentials_store" / f"{identity}.json"
        if identity == "platform":
            return self.path / "keystore"
        return self.path / "keystores" / identity / "keystore.json"

    def _create_keys(self, identity: str) -> None:
        file = self._keys_file(identity)
        if file.exists():
            return
        public, secret = map(_to_base64, zmq.curve_keypair())
        content = {"public": public, "secret": secret}
        if self._generation == "2":
            content = {"publickey": public, "secretkey": secret}
            content |= {"identity": identity, "domain": "", "address": ""}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(0o600)
        file.write_text(json.dumps(content))

    def _read_keys(self, identity: str) -> dict[str, str]:
        content = json.loads(self._keys_file(identity).read_text())
        return {name.removesuffix("key"): value for name, value in content.items()}

    def _write_rights_2(self) -> None:
        store = ("initialize_configs", "set_config", "delete_store", "delete_config")
        update = ["config.store.config_update", "config.store.initial_update"]
        rights: dict[str, Any] = {
            "roles": {
                "default_rpc_capabilities": {
                    "rpc_capabilities": [f"platform.config_store.{method}" for method in store]
                },
                "sync_agent_config": {"rpc_capabilities": update},
                "admin": {"rpc_capabilities": ["/.*/"], "pubsub_capabilities": {"/.*/": "pubsub"}},
            },
            "agents": {name: {"comments": "lab", "agent_roles": ["admin"]} for name in IDENTITIES},
            "agent_groups": {},
        }
        (self.path / "authz.json").write_text(json.dumps(rights))

    def _write_rights_10(self) -> None:
        # The platform's services are listed, too: otherwise it adds them at its start, notifies all its peers
        # some seconds later, and ends if one of them has left meanwhile.
        everything: dict[str, Any] = {"edit_config_store": {"identity": "/.*/"}}
        services: dict[str, dict[str, Any]] = {
            "platform": everything,
            "control.connection": {**everything, "allow_auth_modifications": None},
            "platform.control": {**everything, "allow_auth_modifications": None},
            "platform.config_store": {"sync_agent_config": None},
            "platform.auth": {"edit_config_store": {"identity": "platform.auth"}},
            "platform.health": {"edit_config_store": {"identity": "platform.health"}},
        }
        agents = {name: {"edit_config_store": {"identity": name}} for name in IDENTITIES}
        for identity in services:
            self._create_keys(identity)
        allow = [
            {
                "mechanism": "CURVE",
                "credentials": self._read_keys(identity)["public"],
                "user_id": identity,
                "capabilities": capabilities,
                "enabled": True,
            }
            for identity, capabilities in {**services, **agents}.items()
        ]
        rights = {"allow": allow, "deny": [], "groups": {}, "roles": {}, "version": {"major": 1, "minor": 3}}
        (self.path / "auth.json").write_text(json.dumps(rights))


def _to_base64(key: bytes) -> str:
    """Return a z85 key as VOLTTRON writes it: url-safe base64 without padding."""
    return base64.urlsafe_b64encode(z85.decode(key)).rstrip(b"=").decode()


def _to_z85(key: str) -> str:
    return z85.encode(base64.urlsafe_b64decode(key + "=" * (-len(key) % 4))).decode()
