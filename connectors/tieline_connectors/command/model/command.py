"""A command and its result as plain data; pure.

All times are microseconds since 1970, UTC. A `Command` is complete: what its issuer left out is filled
in from the sink's defaults. `filled` names these fields, so that `digest` and `signing_content` see only what
was sent. So a later change of a default does not change a command.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from tieline_connectors.command.model.point import device_keys, split

Value: TypeAlias = "bool | int | float | str | None"
Action: TypeAlias = Literal["SET", "REVERT"]
State: TypeAlias = Literal[
    "ACCEPTED",
    "EXECUTING",
    "SUCCEEDED",
    "MISMATCH",
    "FAILED",
    "REJECTED",
    "EXPIRED",
    "UNKNOWN",
    "HOLD_ENDED",
    "HOLD_SKIPPED",
    "HOLD_FAILED",
]
TERMINAL = frozenset({"SUCCEEDED", "MISMATCH", "FAILED", "REJECTED", "EXPIRED", "UNKNOWN"})
"""Every command ends in exactly one of these."""

Outcome: TypeAlias = Literal["NOT_WRITTEN", "UNVERIFIED", "VERIFIED", "DIFFERENT", "UNKNOWN", "REVERTED"]


class Write(NamedTuple):
    """One point, in the form of `point.point_of`, and the value to write."""

    point: str
    value: Value = None

    @property
    def device(self) -> str:
        """The path of the device that the point belongs to."""
        return split(self.point)[0]

    @property
    def partition_key(self) -> str:
        """The key that selects its partition: its device, up to the last slash, also one in the point's name.

        So all spellings of one register have one ledger: 2.x reads that slash as one between segments.
        """
        return "/".join(split(self.point)).rpartition("/")[0]


class Defaults(NamedTuple):
    """What the sink fills in if a command leaves it out; ``ttl`` in microseconds."""

    ttl: int = 60_000_000
    priority: int | None = None
    tolerance: float = 0.0


class Command(NamedTuple):
    """A request to move equipment; its form is checked, its authorization is not."""

    command_id: str
    issuer: str
    issued_at: int
    expires_at: int
    action: Action
    writes: tuple[Write, ...]
    correlation_id: str | None = None
    not_before: int | None = None
    reason: str | None = None
    priority: int | None = None
    hold_ms: int | None = None
    tolerance: float = 0.0
    dry_run: bool = False
    signature: str | None = None
    filled: tuple[str, ...] = ()
    topic: str | None = None
    platform: str | None = None

    @property
    def devices(self) -> frozenset[str]:
        """The keys of the devices that it writes to, or may write to (see `point.device_keys`)."""
        return frozenset().union(*(device_keys(write.point) for write in self.writes))

    def to_json(self) -> str:
        """Return the text for the ledger, which `from_json` reads."""
        return canonical(
            {**_fields_without_destination(self), "writes": [write._asdict() for write in self.writes]}
        )

    @staticmethod
    def from_json(text: str) -> Command:
        """Return what `to_json` wrote. Raises ``ValueError`` if the text is anything else."""
        try:
            fields = json.loads(text)
            writes = tuple(Write(**write) for write in fields.pop("writes"))
            filled = tuple(fields.pop("filled"))
            return Command(**fields, writes=writes, filled=filled)
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a command of the ledger: {error}") from None


class WriteResult(NamedTuple):
    """What became of one write."""

    point: str
    requested: Value = None
    previous: Value = None
    actual: Value = None
    outcome: Outcome = "NOT_WRITTEN"
    reason: str = ""

    @property
    def maybe_written(self) -> bool:
        """False only if this write certainly did not happen."""
        return self.outcome != "NOT_WRITTEN"


class Result(NamedTuple):
    """What became of a command; the fields of ``command.CommandResult``."""

    command_id: str
    state: State
    at: int
    correlation_id: str | None = None
    issuer: str = ""
    reason_code: str = ""
    reason: str = ""
    writes: tuple[WriteResult, ...] = ()
    dry_run: bool = False
    received_at: int | None = None
    started_at: int | None = None
    raw: bytes | None = None

    def to_value(self) -> dict[str, Any]:
        """Return data for the schema ``command.CommandResult``."""
        return {**self._asdict(), "writes": [write._asdict() for write in self.writes]}

    def to_json(self) -> str:
        """Return the text for the ledger, without ``raw``; `from_json` reads it."""
        value = self.to_value()
        del value["raw"]
        return canonical(value)

    @staticmethod
    def from_json(text: str) -> Result:
        """Return what `to_json` wrote. Raises ``ValueError`` if the text is anything else."""
        try:
            fields = json.loads(text)
            writes = tuple(WriteResult(**write) for write in fields.pop("writes"))
            return Result(**fields, writes=writes)
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a result of the ledger: {error}") from None


def canonical(content: Any) -> str:
    """Return the canonical JSON: sorted keys, no white space, ASCII, the shortest text of each double."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def signing_content(command: Command) -> bytes:
    """Return the bytes that are signed and hashed: the content that was sent, in canonical form.

    Version 2 is for commands that name a topic or a platform; a command that names neither has version 1.
    """
    sent = _fields_without_destination(command)
    for field in ("signature", "filled"):
        del sent[field]
    sent.update(dict.fromkeys(command.filled))
    sent["writes"] = [write._asdict() for write in command.writes]
    version = b"1" if command.topic is None and command.platform is None else b"2"
    return b"tieline.command.%b\n%b" % (version, canonical(sent).encode("ascii"))


def _fields_without_destination(command: Command) -> dict[str, Any]:
    """Return its fields, without topic and platform if it names neither, as in earlier versions."""
    fields = command._asdict()
    if command.topic is None and command.platform is None:
        del fields["topic"], fields["platform"]
    return fields


def digest(command: Command) -> str:
    """Return BLAKE2b-128 of the content that was sent, without the signature; hexadecimal."""
    return hashlib.blake2b(signing_content(command), digest_size=16).hexdigest()


def sign(command: Command, key: bytes) -> str:
    """Return the signature of a command: HMAC-SHA256, hexadecimal."""
    return hmac.new(key, signing_content(command), hashlib.sha256).hexdigest()


def is_signed_by(command: Command, key: bytes) -> bool:
    """Return whether the command has the signature of this key."""
    signature = (command.signature or "").encode("ascii", "replace")
    return bool(key) and hmac.compare_digest(sign(command, key).encode("ascii"), signature.lower())


def as_action(text: str) -> Action:
    """Return the text as an action; the caller has checked that it is ``SET`` or ``REVERT``."""
    return cast("Action", text)
