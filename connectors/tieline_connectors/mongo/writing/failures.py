"""Translates pymongo's errors for the runtime: wait, stop, or a bad record; pure.

| error                                              | meaning                                        |
|----------------------------------------------------|------------------------------------------------|
| no connection, no primary, a full pool             | ``RetriableError``                                  |
| time-outs, lost connections, too much at once      | ``TooSlowError``: a smaller insert may get through   |
| shutting down, stepping down, too busy, full disk  | ``RetriableError``                                  |
| a write concern that was not reached in time       | ``RetriableError``: what was written is not yet safe |
| credentials, rights, options                       | ``FatalError``, with the fix                        |
| any error of the server about one document         | a data error of that record                    |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson.errors import BSONError
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    InvalidName,
    InvalidOperation,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)

from tieline.api import FatalError, RetriableError

DUPLICATE_KEY = 11000

UNENCODABLE = (BSONError, OverflowError, ValueError, TypeError, RecursionError)
"""The errors of the encoder for a document that it cannot write."""

OUTAGES = {
    6: "HostUnreachable",
    7: "HostNotFound",
    24: "LockTimeout",
    46: "LockBusy",
    50: "MaxTimeMSExpired",
    63: "StaleShardVersion",
    64: "WriteConcernTimeout",
    89: "NetworkTimeout",
    91: "ShutdownInProgress",
    112: "WriteConflict",
    133: "FailedToSatisfyReadPreference",
    134: "ReadConcernMajorityNotAvailableYet",
    146: "ExceededMemoryLimit",
    150: "StaleEpoch",
    189: "PrimarySteppedDown",
    202: "NetworkInterfaceExceededTimeLimit",
    237: "CursorKilled",
    262: "ExceededTimeLimit",
    290: "TransactionExceededLifetimeLimitSeconds",
    384: "ConnectionError",
    407: "TemporarilyUnavailable",
    462: "IngressRequestRateLimitExceeded",
    9001: "SocketException",
    10058: "LegacyNotPrimary",
    10107: "NotWritablePrimary",
    11600: "InterruptedAtShutdown",
    11601: "Interrupted",
    11602: "InterruptedDueToReplStateChange",
    13388: "StaleConfig",
    13435: "NotPrimaryNoSecondaryOk",
    13436: "NotPrimaryOrSecondary",
    14031: "OutOfDiskSpace",
    16500: "RequestRateTooLarge",  # Cosmos DB's
}

_TOO_MUCH = {50, 89, 146, 202, 262, 462, 16500}
"""Outages in which a smaller request may succeed: time-outs, memory, rate limits."""

_BEFORE_SENDING = (ServerSelectionTimeoutError, WaitQueueTimeoutError, NotPrimaryError)

_LABELS = ("RetryableWriteError", "RetryableError", "SystemOverloadedError", "TransientTransactionError")

FIXES = {
    11: "the user of connection.uri is unknown: check the user and authSource",
    13: "give the user of connection.uri the right to insert and find (role readWrite)",
    18: "the credentials of connection.uri are refused: check user, password and authSource",
    20: "the collection cannot be written: is it a view, or a capped or time-series collection?",
    72: "check the options of connection.uri",
    73: "check database and collection: MongoDB does not accept such a name",
    79: "check write.concern: the server does not know it",
    100: "check write.concern: the replica set has fewer members that hold data",
    166: "the collection is a view: name another one",
    8000: "the service refuses it: check user, password and quota",
}
"""Errors that do not end by waiting, with the fix."""

_TOO_LARGE = {10334, 17419, 17420}

WHOLE_BATCH = {2, 9, 15, 22, 10334, 17419, 17420}
"""Errors of a batch that one document causes: bad value, unparsable, too deep, not BSON, too large."""


class TooSlowError(RetriableError):
    """No answer came in time, or the connection was lost; a smaller insert may succeed."""


def to_tieline_error(error: PyMongoError) -> RetriableError | FatalError:
    """Return the runtime's error for an error that is not about single documents."""
    if isinstance(error, OperationFailure):
        if isinstance(error, ExecutionTimeout) or any(map(error.has_error_label, _LABELS)):
            kind = (
                TooSlowError
                if isinstance(error, ExecutionTimeout) or error.code in _TOO_MUCH
                else RetriableError
            )
            return kind(f"MongoDB is not available: {_server_message(error)}")
        return error_of_code(error.code, _server_message(error))
    if isinstance(error, AutoReconnect) and not isinstance(error, _BEFORE_SENDING):
        return TooSlowError(f"MongoDB is not available: {_short(str(error))}")
    if isinstance(error, ConnectionFailure):
        return RetriableError(f"MongoDB is not available: {_short(str(error))}")
    if isinstance(error, (ConfigurationError, InvalidName, InvalidOperation)):
        return FatalError(
            f"MongoDB rejects the settings: {_short(str(error))}; check connection.uri and collection"
        )
    return FatalError(f"MongoDB: {type(error).__name__}: {_short(str(error))}")


def error_of_code(code: int | None, message: str) -> RetriableError | FatalError:
    """Return the runtime's error for a code and message of the server."""
    if code in OUTAGES:
        kind = TooSlowError if code in _TOO_MUCH else RetriableError
        return kind(f"MongoDB is not available ({OUTAGES[code]}): {message}")
    hint = FIXES.get(code or 0, "see the server's log")
    return FatalError(f"MongoDB refuses the request (code {code}): {message}; {hint}")


def is_server_error(code: int | None) -> bool:
    """Return whether an error that was reported for one document would affect every document."""
    return code in OUTAGES or code in FIXES


class TooLargeError(ValueError):
    """The document is larger than the server accepts."""


def to_data_error(error: Mapping[str, Any]) -> ValueError:
    """Return the data error of one record for a write error of the server."""
    kind = TooLargeError if error.get("code") in _TOO_LARGE else ValueError
    return kind(f"MongoDB refuses the document (code {error.get('code')}): {_short(error['errmsg'])}")


def _server_message(error: OperationFailure) -> str:
    """Return the server's message; pymongo's message would add the whole answer."""
    details = error.details or {}
    return _short(str(details.get("errmsg") or error))


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}…"
