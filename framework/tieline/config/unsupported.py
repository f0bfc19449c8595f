"""What is refused with a reason: settings of Kafka Connect that are not there yet, impossible addresses."""

from __future__ import annotations

import re
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


_SERVER = re.compile(r"(?:[A-Za-z_]+://)?([\w.-]+|\[[0-9A-Fa-f:.%]+\])(:\w*)?")
_PORT = "the port is not a number from 1 to 65535"


def server_problem(server: str) -> str:
    """Why no Kafka broker can listen at this address; empty if one can."""
    if not _SERVER.fullmatch(server):
        return "is not host:port (several with commas)"
    return _port_problem(server if "://" in server else f"//{server}")


def url_problem(url: str) -> str:
    """Why no schema registry can answer at this URL, or these with commas; empty if one can."""
    for each in (part.strip() for part in url.split(",")):
        if not re.match(r"https?://[^\s/]", each):
            return "is not a URL: it begins with http:// or https://"
        if problem := _port_problem(each):
            return problem
    return ""


def _port_problem(url: str) -> str:
    try:
        port = urlsplit(url).port
    except ValueError:
        return _PORT
    return _PORT if port == 0 else ""
