"""The settings of the command sink."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import replace
from pathlib import Path

from tieline.api import ConfigError, ConfigProblem, Secret, setting
from tieline.api.config import TopicName
from tieline_connectors.command.execution.agents import DeviceAgent
from tieline_connectors.command.model.command import Defaults
from tieline_connectors.command.model.ledger import Retention
from tieline_connectors.command.policy.file import MAX_BYTES, parse
from tieline_connectors.command.policy.policy import Policy
from tieline_connectors.command.rules.decisions import RuleSettings
from tieline_connectors.command.watched_file import BoundedCall, Content, FileTimeoutError, read_content
from tieline_connectors.volttron_bus.platform_config import PlatformConfig
from tieline_connectors.volttron_bus.vip.connection import Endpoint

_DAY_MS = 86_400_000
_KEY = re.compile(r"\s*([A-Za-z0-9._-]{1,100})\s*:\s*([A-Za-z0-9+/=_-]+)\s*")
_MIN_KEY_BYTES = 16
_BUILT_AT = 1_763_942_400_000_000
"""2025-11-24: no correct clock is earlier than this version. Microseconds."""


class CommandSinkConfig(PlatformConfig):
    """The settings of the command sink; without a rule in ``policy.file`` no command is allowed."""

    policy_file: Path = setting(
        "policy.file",
        doc="Who may write what: docs/reference/command-policy.md. A change takes effect without a restart.",
        importance="high",
    )
    results_topic: TopicName = setting(
        "results.topic",
        "command-results",
        min_length=1,
        doc="The topic of results, as command.CommandResult.",
        importance="high",
    )
    audit_file: Path = setting(
        "audit.file",
        doc="The append-only, hash-chained log of every decision. A task above the first adds its "
        "number. tieline command audit verify checks it.",
        importance="high",
    )
    kill_switch_file: Path | None = setting(
        "kill.switch.file",
        None,
        doc="While this file exists, no device is written; its first line is the reason in the "
        "results. It takes effect at once, without a restart.",
        importance="high",
    )
    old_results_topic: TopicName = setting(
        "results.old.topic",
        "",
        doc="A topic for the end of each command in the old agents' JSON, such as command-to-cloud. "
        "Empty: it is not written.",
    )
    old_issuer: str = setting(
        "old.issuer",
        "",
        doc="Also accept the old agents' JSON {message, new_value, device_point}, as commands of this "
        "issuer that expire max.age.ms after their record's timestamp. Empty: they are rejected.",
    )
    default_ttl_ms: int = setting(
        "default.ttl.ms",
        60_000,
        ge=1,
        doc="How long after its issued_at a command without expires_at expires.",
    )
    default_priority: int | None = setting(
        "default.priority", None, ge=1, le=16, doc="The priority of a command without one."
    )
    max_age_ms: int = setting(
        "max.age.ms",
        300_000,
        ge=1,
        doc="A command older than this, by its issued_at or its record's timestamp, is EXPIRED, "
        "whatever its expires_at says.",
    )
    max_clock_skew_ms: int = setting(
        "max.clock.skew.ms", 10_000, ge=0, doc="How far in the future a command may have been issued."
    )
    clock_believe_ms: int = setting(
        "clock.believe.ms",
        120_000,
        ge=0,
        doc="How long a clock that was set must be stable before it is believed. Until then commands wait.",
    )
    verify_tolerance: float = setting(
        "verify.tolerance",
        0.0,
        ge=0,
        doc="How far the value that is read back may differ from the written one, for commands without "
        "their own tolerance.",
    )
    verify_delay_ms: int = setting(
        "verify.delay.ms",
        0,
        ge=0,
        le=60_000,
        doc="How long to wait after a write before the device is read back.",
    )
    rpc_timeout_ms: int = setting(
        "rpc.timeout.ms", 5_000, ge=1, le=60_000, doc="How long the platform may take to answer a call."
    )
    hold_revert_on_stop_ms: int = setting(
        "hold.revert.on.stop.ms",
        0,
        ge=0,
        le=600_000,
        doc="How long a clean stop may take to revert held points before their time; below the "
        "worker's task.shutdown.graceful.timeout.ms. 0: holds stay, and the next start ends them.",
    )
    hold_forgive: str = setting(
        "hold.forgive",
        "",
        doc="Ids of commands, separated by commas, whose hold ends without reverting the points.",
    )
    device_agent: DeviceAgent = setting(
        "volttron.device.agent",
        "auto",
        doc="The agent through which points are written: driver (2.x, or 8, 9, 10 without an "
        "actuator), actuator (8, 9, 10), or auto, which asks the platform's driver and remembers "
        "an actuator permanently.",
    )
    claim_ms: int = setting(
        "claim.ms",
        10_000,
        ge=100,
        doc="How long after STARTED the write may begin; at most half of the group's session timeout.",
    )
    session_timeout_ms: int = setting(
        "consumer.override.session.timeout.ms",
        45_000,
        ge=1,
        doc="Kafka's own: a worker that is silent for this long is replaced. The sink reads it to "
        "check claim.ms.",
    )
    ledger_retention_ms: int = setting(
        "ledger.retention.ms", 30 * _DAY_MS, ge=1, doc="How long a command is remembered; above max.age.ms."
    )
    ledger_name: str = setting(
        "ledger.name",
        "",
        max_length=200,
        doc="The connector whose ledger this one continues, after it was renamed. Empty: its own.",
    )
    max_waiting: int = setting(
        "max.waiting",
        10_000,
        ge=1,
        doc="How many commands may wait in a partition, and half as many of one issuer. Further ones "
        "are rejected (TOO_MANY_WAIT).",
    )
    dry_run: bool = setting("dry.run", False, doc="Check everything and write nothing; each result says so.")
    signature_keys: Secret = setting(
        "signature.keys",
        Secret(""),
        doc="Keys of signatures as name:base64, separated by commas, 16 bytes or more each. A rule of"
        " the policy names the key that it requires.",
    )

    signature_place_required: bool = setting(
        "signature.place.required",
        False,
        doc="Whether a signature counts only if the command names topic and platform. Otherwise "
        "signatures of version 1, which name neither, count too.",
    )

    def problems(self) -> list[tuple[str, str]]:
        """Return the problems between the settings, and in the form of ``signature.keys``."""
        problems = super().problems()
        if self.ledger_retention_ms <= self.max_age_ms:
            problems.append(
                (
                    "ledger.retention.ms",
                    "must be above max.age.ms, so that a command that may still arrive is remembered",
                )
            )
        if self.claim_ms > self.session_timeout_ms // 2:
            fix = f"make it at most {self.session_timeout_ms // 2}, or increase the session timeout"
            problems.append(
                (
                    "claim.ms",
                    "must be at most half of consumer.override.session.timeout.ms"
                    f" ({self.session_timeout_ms}): a worker that was suspended for longer may have been"
                    f" replaced; {fix}",
                )
            )
        if self.old_results_topic == self.results_topic:
            problems.append(("results.old.topic", "must differ from results.topic"))
        try:
            self.signing_keys()
        except ValueError as error:
            problems.append(("signature.keys", str(error)))
        return problems

    def file_problems(self) -> list[tuple[str, str]]:
        """Return the problems of the files that the settings name."""
        problems = super().file_problems()
        try:
            self.policy()
        except ConfigError as error:
            problems += [("policy.file", str(problem)) for problem in error.problems]
        if not self.audit_file.absolute().parent.is_dir():
            problems.append(("audit.file", f"the folder {self.audit_file.parent} does not exist; create it"))
        elif self.audit_file.exists() and not self.audit_file.is_file():
            problems.append(("audit.file", "is not a regular file; choose another path"))
        return problems

    def retention(self) -> Retention:
        """How long the ledger keeps what it knows."""
        unauthorized = self.max_age_ms + self.max_clock_skew_ms
        return Retention(self.ledger_retention_ms * 1000, unauthorized * 1000)

    def endpoint_of(self, connector: str, task: int) -> Endpoint:
        """Return where a task connects, and under which identity. Raises ``ValueError``.

        Each task always has the same identity of its own: a router rejects a second connection under one.
        """
        endpoint = self.endpoint(f"{connector}.{task}")
        if self.identity and task:
            endpoint = replace(endpoint, identity=f"{self.identity}-{task}")
        return endpoint

    def policy(self) -> Policy:
        """Return the policy of the file as it is now. Raises ``ConfigError``."""
        return parse(self.policy_content().text, str(self.policy_file))

    def policy_content(self) -> Content:
        """Return the policy file as it is now.

        Raises ``ConfigError`` if it cannot be read, or its file system does not answer.
        """
        read: BoundedCall[Content | None] = BoundedCall(lambda: read_content(self.policy_file, MAX_BYTES))
        try:
            content = read()
        except FileTimeoutError:
            message = "its file system does not answer"
        except (OSError, ValueError) as error:
            message = (isinstance(error, OSError) and error.strerror) or str(error)
        else:
            assert content is not None
            return content
        raise ConfigError([ConfigProblem(str(self.policy_file), "", f"cannot be read: {message}")])

    def defaults(self) -> Defaults:
        """Return what a command gets if it leaves it out."""
        return Defaults(self.default_ttl_ms * 1000, self.default_priority, self.verify_tolerance)

    def rule_settings(self) -> RuleSettings:
        """Return the settings that the rules need."""
        return RuleSettings(
            self.max_age_ms * 1000,
            self.max_clock_skew_ms * 1000,
            _BUILT_AT,
            self.dry_run,
            self.claim_ms * 1000,
            frozenset(filter(None, map(str.strip, self.hold_forgive.split(",")))),
            self.signature_place_required,
        )

    def signing_keys(self) -> dict[str, bytes]:
        """Return the keys of signatures by name. Raises ``ValueError``, which never contains a key."""
        return parse_keys(self.signature_keys.get_secret_value())


def parse_keys(text: str) -> dict[str, bytes]:
    """Return keys by name, from ``name:base64`` separated by commas.

    Raises ``ValueError``, which never contains a key.
    """
    keys: dict[str, bytes] = {}
    for number, part in enumerate(filter(str.strip, text.split(",")), start=1):
        match = _KEY.fullmatch(part)
        if match is None:
            raise ValueError(f"number {number} is not name:base64")
        try:
            key = base64.b64decode(match[2], altchars=b"-_", validate=True)
        except binascii.Error:
            raise ValueError(f"the key {match[1]} is not base64") from None
        if len(key) < _MIN_KEY_BYTES:
            raise ValueError(f"the key {match[1]} is shorter than {_MIN_KEY_BYTES} bytes")
        keys[match[1]] = key
    return keys
