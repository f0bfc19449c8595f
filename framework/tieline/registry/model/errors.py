"""What a registry answers when it refuses: an HTTP status, Confluent's error code, and a sentence."""

from __future__ import annotations


class RegistryError(Exception):
    """A refusal. Raised by the rules; the HTTP side makes ``{"error_code", "message"}`` of it."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def unauthorized() -> RegistryError:
    """No credentials, or wrong ones."""
    return RegistryError(401, 401, "Unauthorized")


def forbidden() -> RegistryError:
    """These credentials may read, and the call writes."""
    return RegistryError(403, 403, "These credentials may only read. Use some that may write")


def subject_not_found(subject: str) -> RegistryError:
    """Nothing is registered under this name."""
    return RegistryError(404, 40401, f"Subject '{subject}' not found.")


def version_not_found(version: int | str) -> RegistryError:
    """The subject is there, this version is not."""
    return RegistryError(404, 40402, f"Version {version} not found.")


def schema_not_found(which: object = "") -> RegistryError:
    """No schema of this id, guid or text."""
    return RegistryError(404, 40403, f"Schema {which} not found" if which else "Schema not found")


def subject_soft_deleted(subject: str) -> RegistryError:
    """Deleted already."""
    return RegistryError(
        404, 40404, f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently"
    )


def subject_not_soft_deleted(subject: str) -> RegistryError:
    """It has to be deleted softly before it can be deleted for good."""
    message = f"Subject '{subject}' was not deleted first before being permanently deleted"
    return RegistryError(404, 40405, message)


def version_soft_deleted(subject: str, version: int) -> RegistryError:
    """Deleted already."""
    message = f"Subject '{subject}' Version {version} was soft deleted. "
    return RegistryError(404, 40406, f"{message}Set permanent=true to delete permanently")


def version_not_soft_deleted(subject: str, version: int) -> RegistryError:
    """It has to be deleted softly before it can be deleted for good."""
    message = f"Subject '{subject}' Version {version} was not deleted first before being permanently deleted"
    return RegistryError(404, 40407, message)


def config_not_set(subject: str) -> RegistryError:
    """The subject has no configuration of its own; that of all holds."""
    message = f"Subject '{subject}' does not have subject-level compatibility configured"
    return RegistryError(404, 40408, message)


def mode_not_set(subject: str) -> RegistryError:
    """The subject has no mode of its own; that of all holds."""
    message = f"Subject '{subject}' does not have subject-level mode configured"
    return RegistryError(404, 40409, message)


def incompatible(subject: str, messages: list[str]) -> RegistryError:
    """The compatibility level forbids the new schema; each message names a place."""
    told = "; ".join(messages)
    what = f'Schema being registered is incompatible with an earlier schema for subject "{subject}"'
    return RegistryError(409, 40901, f"{what}, details: [{told}]")


INVALID_SCHEMA = 42201


def invalid_schema(message: str) -> RegistryError:
    """No schema of its type, or a reference that leads nowhere."""
    return RegistryError(422, INVALID_SCHEMA, message)


def invalid_version(version: object) -> RegistryError:
    """Not a number of a version."""
    known = 'Allowed values are between [1, 2^31-1] and the string "latest"'
    return RegistryError(422, 42202, f"The specified version '{version}' is not a valid version id. {known}")


def invalid_level(known: tuple[str, ...]) -> RegistryError:
    """Not a compatibility level."""
    return RegistryError(
        422, 42203, f"Invalid compatibility level. Valid values are {', '.join(known).lower()}"
    )


def invalid_mode(known: tuple[str, ...]) -> RegistryError:
    """Not a mode."""
    return RegistryError(422, 42204, f"Invalid mode. Valid values are {', '.join(known)}")


def not_permitted(message: str) -> RegistryError:
    """The mode forbids it, or it would change what an id means."""
    return RegistryError(422, 42205, message)


def reference_exists(subject: str, version: int, ids: list[int]) -> RegistryError:
    """Other schemas are built on it."""
    told = ", ".join(map(str, ids))
    return RegistryError(
        422,
        42206,
        f"One or more references exist to subject '{subject}' version {version} (schema ids {told})",
    )


def invalid_subject(subject: str) -> RegistryError:
    """Not a name for a subject."""
    return RegistryError(422, 42208, f"The specified subject '{subject}' is not a valid subject.")


def too_large(status: int, message: str) -> RegistryError:
    """More bytes than the registry, or the broker, takes."""
    return RegistryError(status, 42209, message)


def unprocessable(message: str) -> RegistryError:
    """A body, or a parameter, that is not what the call takes."""
    return RegistryError(422, 422, message)


def store_failed(message: str) -> RegistryError:
    """The broker is away, or refuses."""
    return RegistryError(500, 50001, message)


OF_COSTS = (42209, 50302)
"""Codes of refusals that say nothing of the state: to ask again at once is in vain."""


def too_complex() -> RegistryError:
    """It cannot be checked within the time that one request has."""
    message = "The schema is too complex to be checked. Make it smaller, or set compatibility NONE"
    return RegistryError(422, 42209, message)


def busy() -> RegistryError:
    """Too many requests that take long are waiting."""
    return RegistryError(503, 50302, "Too many large schemas are being checked. Try again in a few seconds")
