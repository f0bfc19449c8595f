"""The paths of Confluent's interface: which call answers each, and which access it needs.

A request's access is decided by the route that it matched, never by the text of its path.
"""

from __future__ import annotations

from typing import NamedTuple

from tieline import __version__
from tieline.registry.http import schema_routes, subject_routes
from tieline.registry.http.access import READ, WRITE, Access
from tieline.registry.http.subject_routes import Call
from tieline.registry.model.avro_schema import TYPES


class CallRoute(NamedTuple):
    """One path and method. ``access`` has no default, so that each route states what it needs.

    A call whose route has ``READ`` cannot change anything, whatever the user's role
    (``RegistryRequest.change``).
    """

    path: str
    method: str
    access: Access
    call: Call


_SUBJECT = "/subjects/{subject:path}"
_VERSIONS = f"{_SUBJECT}/versions"
_VERSION = f"{_VERSIONS}/{{version}}"


def _global_and_by_subject(path: str, method: str, access: Access, call: Call) -> list[CallRoute]:
    return [CallRoute(path + suffix, method, access, call) for suffix in ("", "/{subject:path}")]


ROUTES: tuple[CallRoute, ...] = (
    CallRoute("/schemas/ids/{id}", "GET", READ, schema_routes.schema_by_id),
    CallRoute("/schemas/ids/{id}/schema", "GET", READ, schema_routes.text_by_id),
    CallRoute("/schemas/ids/{id}/subjects", "GET", READ, schema_routes.subjects_by_id),
    CallRoute("/schemas/ids/{id}/versions", "GET", READ, schema_routes.versions_by_id),
    CallRoute("/schemas/guids/{guid}", "GET", READ, schema_routes.schema_by_guid),
    CallRoute("/schemas/guids/{guid}/ids", "GET", READ, schema_routes.ids_by_guid),
    CallRoute("/schemas/types", "GET", READ, lambda _: list(TYPES)),
    CallRoute("/schemas", "GET", READ, subject_routes.list_schemas),
    CallRoute(f"{_VERSION}/schema", "GET", READ, subject_routes.text_of_version),
    CallRoute(f"{_SUBJECT}/metadata", "GET", READ, subject_routes.version_with_metadata),
    CallRoute(f"{_VERSION}/referencedby", "GET", READ, subject_routes.referenced_by),
    CallRoute(_VERSION, "GET", READ, subject_routes.get_version),
    CallRoute(_VERSION, "DELETE", WRITE, subject_routes.delete_version),
    CallRoute(_VERSIONS, "GET", READ, subject_routes.list_versions),
    CallRoute(_VERSIONS, "POST", WRITE, subject_routes.register),
    CallRoute(_SUBJECT, "POST", READ, subject_routes.lookup),
    CallRoute(_SUBJECT, "DELETE", WRITE, subject_routes.delete_subject),
    CallRoute("/subjects", "GET", READ, subject_routes.list_subjects),
    CallRoute(f"/compatibility{_VERSION}", "POST", READ, subject_routes.check_compatibility),
    CallRoute(f"/compatibility{_VERSIONS}", "POST", READ, subject_routes.check_compatibility),
    CallRoute("/contexts", "GET", READ, lambda _: ["."]),
    CallRoute("/v1/metadata/id", "GET", READ, subject_routes.get_cluster_ids),
    CallRoute("/v1/metadata/version", "GET", READ, lambda _: {"version": __version__, "commitId": ""}),
    CallRoute("/", "GET", READ, lambda _: {}),
    CallRoute("/", "POST", READ, lambda _: {}),
    *_global_and_by_subject("/config", "GET", READ, subject_routes.get_config),
    *_global_and_by_subject("/config", "PUT", WRITE, subject_routes.set_config),
    *_global_and_by_subject("/config", "DELETE", WRITE, subject_routes.delete_config),
    *_global_and_by_subject("/mode", "GET", READ, subject_routes.get_mode),
    *_global_and_by_subject("/mode", "PUT", WRITE, subject_routes.set_mode),
    CallRoute("/mode/{subject:path}", "DELETE", WRITE, subject_routes.delete_mode),
)
