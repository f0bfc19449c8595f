"""What a command and its result are: plain data, strictly read; pure.

All times are microseconds since 1970, UTC. A `Command` is complete: what its issuer left out is filled
in from the sink's defaults, and `filled` remembers which, so that `digest` and `signing_content` see
only what was sent. A later change of a default makes no command another one.
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
"""A command comes to exactly one of these."""

Outcome: TypeAlias = Literal["NOT_WRITTEN", "UNVERIFIED", "VERIFIED", "DIFFERENT", "UNKNOWN", "REVERTED"]


class Write(NamedTuple):
    """One point, as `point.point_of` writes it, and what to write there."""

    point: str
    value: Value = None

    @property
    def device(self) -> str:
        """The path of the device that the point belongs to."""
        return split(self.point)[0]

    @property
    def place(self) -> str:
        """What its partition follows from: its device, where a slash in a point's name ends one, too.

        So all texts of one register have one ledger: 2.x takes that slash for one between segments.
        """
        return "/".join(split(self.point)).rpartition("/")[0]


class Defaults(NamedTuple):
    """What the sink says where a command does not: ``ttl`` in microseconds."""

    ttl: int = 60_000_000
    priority: int | None = None
    tolerance: float = 0.0


class Command(NamedTuple):
    """A wish to move equipment, checked for its form and not yet for its right."""

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
        """The keys of the devices that it writes to, or may write to (`point.device_keys`)."""
        return frozenset().union(*(device_keys(write.point) for write in self.writes))

    def to_json(self) -> str:
        """For the ledger; `from_json` reads it."""
        return canonical({**_without_place(self), "writes": [write._asdict() for write in self.writes]})

    @staticmethod
    def from_json(text: str) -> Command:
        """What `to_json` wrote. Raises ``ValueError`` on anything else."""
        try:
            found = json.loads(text)
            writes = tuple(Write(**write) for write in found.pop("writes"))
            filled = tuple(found.pop("filled"))
            return Command(**found, writes=writes, filled=filled)
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
        """False only where it is certain that this write did not happen."""
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
        """Data for the schema ``command.CommandResult``."""
        return {**self._asdict(), "writes": [write._asdict() for write in self.writes]}

    def to_json(self) -> str:
        """For the ledger, without ``raw``; `from_json` reads it."""
        value = self.to_value()
        del value["raw"]
        return canonical(value)

    @staticmethod
    def from_json(text: str) -> Result:
        """What `to_json` wrote. Raises ``ValueError`` on anything else."""
        try:
            found = json.loads(text)
            writes = tuple(WriteResult(**write) for write in found.pop("writes"))
            return Result(**found, writes=writes)
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a result of the ledger: {error}") from None


def canonical(content: Any) -> str:
    """One text for one content: sorted keys, no white space, ASCII, the shortest text of each double."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def signing_content(command: Command) -> bytes:
    """The bytes that a signature is made over, and that the digest names: what was sent, canonically.

    Version 2 names the topic, the platform or both; a command that names neither is signed as version 1.
    """
    sent = _without_place(command)
    for field in ("signature", "filled"):
        del sent[field]
    sent.update(dict.fromkeys(command.filled))
    sent["writes"] = [write._asdict() for write in command.writes]
    version = b"1" if command.topic is None and command.platform is None else b"2"
    return b"tieline.command.%b\n%b" % (version, canonical(sent).encode("ascii"))


def _without_place(command: Command) -> dict[str, Any]:
    """Its fields, without topic and platform where it names neither: as versions before had them."""
    found = command._asdict()
    if command.topic is None and command.platform is None:
        del found["topic"], found["platform"]
    return found


def digest(command: Command) -> str:
    """BLAKE2b-128 of the content as it was sent, without the signature; hexadecimal."""
    return hashlib.blake2b(signing_content(command), digest_size=16).hexdigest()


def sign(command: Command, key: bytes) -> str:
    """The signature of a command: HMAC-SHA256, hexadecimal."""
    return hmac.new(key, signing_content(command), hashlib.sha256).hexdigest()


def signed_by(command: Command, key: bytes) -> bool:
    """Whether the command bears the signature of this key."""
    given = (command.signature or "").encode("ascii", "replace")
    return bool(key) and hmac.compare_digest(sign(command, key).encode("ascii"), given.lower())


def as_action(text: str) -> Action:
    """``SET`` or ``REVERT``; the caller has checked it."""
    return cast("Action", text)
