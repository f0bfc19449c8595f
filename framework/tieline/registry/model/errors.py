"""The errors of a registry: an HTTP status, Confluent's error code, and a message."""

from __future__ import annotations


class RegistryError(Exception):
    """A request that the registry rejects. HTTP clients receive it as ``{"error_code", "message"}``."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def forbidden() -> RegistryError:
    """Return the error for a user who may read, and a call that writes."""
    return RegistryError(403, 403, "This user may only read. Use a user with the role operator or admin")


def subject_not_found(subject: str) -> RegistryError:
    """Return the error for a subject without versions."""
    return RegistryError(404, 40401, f"Subject '{subject}' not found.")


def version_not_found(version: int | str) -> RegistryError:
    """Return the error for a version that its subject does not have."""
    return RegistryError(404, 40402, f"Version {version} not found.")


def schema_not_found(which: object = "") -> RegistryError:
    """Return the error for an unknown id, guid or text of a schema."""
    return RegistryError(404, 40403, f"Schema {which} not found" if which else "Schema not found")


def subject_soft_deleted(subject: str) -> RegistryError:
    """Return the error for a second soft deletion of a subject."""
    return RegistryError(
        404, 40404, f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently"
    )


def subject_not_soft_deleted(subject: str) -> RegistryError:
    """Return the error for a permanent deletion without a soft one before it."""
    message = f"Subject '{subject}' was not deleted first before being permanently deleted"
    return RegistryError(404, 40405, message)


def version_soft_deleted(subject: str, version: int) -> RegistryError:
    """Return the error for a second soft deletion of a version."""
    message = f"Subject '{subject}' Version {version} was soft deleted. "
    return RegistryError(404, 40406, f"{message}Set permanent=true to delete permanently")


def version_not_soft_deleted(subject: str, version: int) -> RegistryError:
    """Return the error for a permanent deletion without a soft one before it."""
    message = f"Subject '{subject}' Version {version} was not deleted first before being permanently deleted"
    return RegistryError(404, 40407, message)


def config_not_set(subject: str) -> RegistryError:
    """Return the error for a subject that only has the global configuration."""
    message = f"Subject '{subject}' does not have subject-level compatibility configured"
    return RegistryError(404, 40408, message)


def mode_not_set(subject: str) -> RegistryError:
    """Return the error for a subject that only has the global mode."""
    message = f"Subject '{subject}' does not have subject-level mode configured"
    return RegistryError(404, 40409, message)


def incompatible(subject: str, messages: list[str]) -> RegistryError:
    """Return the error for a schema that the compatibility level forbids. Each message names a field."""
    details = "; ".join(messages)
    what = f'Schema being registered is incompatible with an earlier schema for subject "{subject}"'
    return RegistryError(409, 40901, f"{what}, details: [{details}]")


INVALID_SCHEMA = 42201


def invalid_schema(message: str) -> RegistryError:
    """Return the error for a text that is not a schema, or has a reference that cannot be resolved."""
    return RegistryError(422, INVALID_SCHEMA, message)


def invalid_version(version: object) -> RegistryError:
    """Return the error for a version that is not a number in range."""
    known = 'Allowed values are between [1, 2^31-1] and the string "latest"'
    return RegistryError(422, 42202, f"The specified version '{version}' is not a valid version id. {known}")


def invalid_level(known: tuple[str, ...]) -> RegistryError:
    """Return the error for an unknown compatibility level."""
    return RegistryError(
        422, 42203, f"Invalid compatibility level. Valid values are {', '.join(known).lower()}"
    )


def invalid_mode(known: tuple[str, ...]) -> RegistryError:
    """Return the error for an unknown mode."""
    return RegistryError(422, 42204, f"Invalid mode. Valid values are {', '.join(known)}")


def not_permitted(message: str) -> RegistryError:
    """Return the error for a change that the mode forbids, or that would give an id another meaning."""
    return RegistryError(422, 42205, message)


def reference_exists(subject: str, version: int, ids: list[int]) -> RegistryError:
    """Return the error for the deletion of a version to which other schemas refer."""
    users = ", ".join(map(str, ids))
    return RegistryError(
        422,
        42206,
        f"One or more references exist to subject '{subject}' version {version} (schema ids {users})",
    )


def invalid_subject(subject: str) -> RegistryError:
    """Return the error for a text that cannot be the name of a subject."""
    return RegistryError(422, 42208, f"The specified subject '{subject}' is not a valid subject.")


def too_large(status: int, message: str) -> RegistryError:
    """Return the error for more bytes than the registry or the broker accepts."""
    return RegistryError(status, 42209, message)


def unprocessable(message: str) -> RegistryError:
    """Return the error for a body or parameter that the call does not accept."""
    return RegistryError(422, 422, message)


def store_failed(message: str) -> RegistryError:
    """Return the error for a broker that is unavailable or rejects a write."""
    return RegistryError(500, 50001, message)


COST_CODES = (42209, 50302)
"""Codes of errors that do not depend on the state, so that reading the topic first would not help."""


def too_complex() -> RegistryError:
    """Return the error for a schema that cannot be checked within the limit of one request."""
    message = "The schema is too complex to be checked. Make it smaller, or set compatibility NONE"
    return RegistryError(422, 42209, message)


def busy() -> RegistryError:
    """Return the error for a slow request while too many others wait."""
    return RegistryError(503, 50302, "Too many large schemas are being checked. Try again in a few seconds")
