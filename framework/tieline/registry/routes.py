"""The paths of Confluent's interface: which call answers each, and what it needs.

Access is decided here, by the route that a request matched, never by the text of its path.
"""

from __future__ import annotations

from typing import NamedTuple

from tieline import __version__
from tieline.registry import calls, calls_by_id
from tieline.registry.asked import READ, WRITE, Access
from tieline.registry.calls import Call
from tieline.registry.formats import TYPES


class CallRoute(NamedTuple):
    """One path and method. ``access`` has no default: each route says what it needs.

    A call whose route says ``READ`` is unable to change anything, whoever asks (``Asked.answer_of``).
    """

    path: str
    method: str
    access: Access
    call: Call


_SUBJECT = "/subjects/{subject:path}"
_VERSIONS = f"{_SUBJECT}/versions"
_VERSION = f"{_VERSIONS}/{{version}}"


def _of_all_and_of_one(path: str, method: str, access: Access, call: Call) -> list[CallRoute]:
    return [CallRoute(path + tail, method, access, call) for tail in ("", "/{subject:path}")]


ROUTES: tuple[CallRoute, ...] = (
    CallRoute("/schemas/ids/{id}", "GET", READ, calls_by_id.schema_by_id),
    CallRoute("/schemas/ids/{id}/schema", "GET", READ, calls_by_id.text_by_id),
    CallRoute("/schemas/ids/{id}/subjects", "GET", READ, calls_by_id.subjects_by_id),
    CallRoute("/schemas/ids/{id}/versions", "GET", READ, calls_by_id.versions_by_id),
    CallRoute("/schemas/guids/{guid}", "GET", READ, calls_by_id.schema_by_guid),
    CallRoute("/schemas/guids/{guid}/ids", "GET", READ, calls_by_id.ids_by_guid),
    CallRoute("/schemas/types", "GET", READ, lambda _: list(TYPES)),
    CallRoute("/schemas", "GET", READ, calls.schemas),
    CallRoute(f"{_VERSION}/schema", "GET", READ, calls.text_of_version),
    CallRoute(f"{_SUBJECT}/metadata", "GET", READ, calls.with_metadata),
    CallRoute(f"{_VERSION}/referencedby", "GET", READ, calls.referenced_by),
    CallRoute(_VERSION, "GET", READ, calls.version_as_json),
    CallRoute(_VERSION, "DELETE", WRITE, calls.delete_version),
    CallRoute(_VERSIONS, "GET", READ, calls.versions),
    CallRoute(_VERSIONS, "POST", WRITE, calls.register),
    CallRoute(_SUBJECT, "POST", READ, calls.lookup),
    CallRoute(_SUBJECT, "DELETE", WRITE, calls.delete_subject),
    CallRoute("/subjects", "GET", READ, calls.subjects),
    CallRoute(f"/compatibility{_VERSION}", "POST", READ, calls.check),
    CallRoute(f"/compatibility{_VERSIONS}", "POST", READ, calls.check),
    CallRoute("/contexts", "GET", READ, lambda _: ["."]),
    CallRoute("/v1/metadata/id", "GET", READ, calls.metadata),
    CallRoute("/v1/metadata/version", "GET", READ, lambda _: {"version": __version__, "commitId": ""}),
    CallRoute("/", "GET", READ, lambda _: {}),
    CallRoute("/", "POST", READ, lambda _: {}),
    *_of_all_and_of_one("/config", "GET", READ, calls.config),
    *_of_all_and_of_one("/config", "PUT", WRITE, calls.set_config),
    *_of_all_and_of_one("/config", "DELETE", WRITE, calls.delete_config),
    *_of_all_and_of_one("/mode", "GET", READ, calls.mode),
    *_of_all_and_of_one("/mode", "PUT", WRITE, calls.set_mode),
    CallRoute("/mode/{subject:path}", "DELETE", WRITE, calls.delete_mode),
)
