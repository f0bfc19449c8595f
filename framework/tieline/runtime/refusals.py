"""What is refused with a reason: settings of Kafka Connect that are not there yet, impossible addresses."""

from __future__ import annotations

from urllib.parse import urlsplit

NO_DEAD_LETTERS = (
    "there is no dead letter queue yet: a record that can never be handled stops its task, after everything "
    "before it is written. Remove this setting; filter such records with a transform, or pass over one with "
    "tieline offsets set"
)
NO_PREDICATES = (
    "there are no predicates yet, and without one the transform would change every record. Remove the "
    "transform; the transform filter drops records by topic.regex or key.regex"
)
NO_COPIES = "0 is not possible; give -1 for the broker's default"
_OF_WORKER = (
    "settings of a single client belong to a connector: write {side}.override.{rest} in its file. TLS and "
    "SASL (security.protocol, ssl.*, sasl.*) stand in the worker's file without a prefix"
)
_OF_CONNECTOR = "write {side}.override.{rest}: Kafka Connect, too, takes a client's settings only there"
_ADMIN = "topics are created with the worker's own rights: security.protocol, ssl.* and sasl.* in its file"


def refusal(key: str, *, of_worker: bool) -> str:
    """Why a setting of Kafka Connect is not taken, and what to do instead; empty if nothing is known."""
    side, _, rest = key.partition(".")
    if side == "admin" and rest:
        return _ADMIN
    if side in ("producer", "consumer") and rest and (of_worker or not rest.startswith("override.")):
        reason = _OF_WORKER if of_worker else _OF_CONNECTOR
        return reason.format(side=side, rest=rest.removeprefix("override."))
    if key.startswith("errors.deadletterqueue."):
        return NO_DEAD_LETTERS
    if key == "predicates" or key.startswith("predicates."):
        return NO_PREDICATES
    return ""


def server_problem(text: str) -> str:
    """Why nothing can listen at these addresses (``host:port``, perhaps as a URL); empty if something can."""
    for server in filter(None, (part.strip() for part in text.split(","))):
        try:
            port = urlsplit(server if "://" in server else f"//{server}").port
        except ValueError:
            port = 0
        if port == 0:
            return "the port is not a number from 1 to 65535"
    return ""
