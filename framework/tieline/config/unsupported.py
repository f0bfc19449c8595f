"""Settings of Kafka Connect without effect or not supported yet, and impossible addresses, with reasons."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

PASSED_TO_CLIENTS = ("security.protocol", "sasl.", "ssl.", "client.dns.lookup", "socket.")
"""Worker settings that Kafka's clients get unchanged: keys, and beginnings of keys."""

IGNORED = {
    "config.providers": "env, file and directory are always there",
    "config.storage.replication.factor": "standalone worker",
    "config.storage.topic": "standalone worker",
    "group.id": "standalone worker",
    "header.converter": "headers are bytes",
    "internal.key.converter": "not needed",
    "internal.value.converter": "not needed",
    "offset.storage.file.filename": "offsets are in the broker",
    "plugin.discovery": "plugins are entry points",
    "rest.port": "use listeners",
    "status.storage.replication.factor": "standalone worker",
    "status.storage.topic": "standalone worker",
}
"""Settings of Kafka Connect's own files that have no effect here; the log names them once."""

NO_PREDICATES = (
    "there are no predicates yet, and without one the transform would change every record. Remove the "
    "transform; the transform filter drops records by topic.regex or key.regex"
)
NO_COPIES = "0 is not possible; give -1 for the broker's default"
_OF_WORKER = (
    "settings of a single client belong to a connector: write {side}.override.{rest} in its file. TLS and "
    "SASL (security.protocol, ssl.*, sasl.*) belong in the worker's file, without a prefix"
)
_OF_CONNECTOR = "write {side}.override.{rest}: Kafka Connect, too, takes a client's settings only there"
_ADMIN = "topics are created with the worker's own rights: security.protocol, ssl.* and sasl.* in its file"


def refusal(key: str, *, of_worker: bool) -> str:
    """Return why a setting of Kafka Connect is rejected, and what to do; empty if it is not known."""
    side, _, rest = key.partition(".")
    if side == "admin" and rest:
        return _ADMIN
    if side in ("producer", "consumer") and rest and (of_worker or not rest.startswith("override.")):
        reason = _OF_WORKER if of_worker else _OF_CONNECTOR
        return reason.format(side=side, rest=rest.removeprefix("override."))
    if key == "predicates" or key.startswith("predicates."):
        return NO_PREDICATES
    return ""


_SERVER = re.compile(r"(?:[A-Za-z_]+://)?([\w.-]+|\[[0-9A-Fa-f:.%]+\])(:\w*)?")
_PORT = "the port is not a number from 1 to 65535"


def server_problem(server: str) -> str:
    """Return why no Kafka broker can listen at this address; empty if one can."""
    if not _SERVER.fullmatch(server):
        return "is not host:port (several with commas)"
    return _port_problem(server if "://" in server else f"//{server}")


def url_problem(url: str) -> str:
    """Return why no schema registry can answer at this URL (several with commas); empty if one can."""
    for address in (part.strip() for part in url.split(",")):
        if not re.match(r"https?://[^\s/]", address):
            return "is not a URL: it begins with http:// or https://"
        if problem := _port_problem(address):
            return problem
    return ""


def _port_problem(url: str) -> str:
    try:
        port = urlsplit(url).port
    except ValueError:
        return _PORT
    return _PORT if port == 0 else ""
