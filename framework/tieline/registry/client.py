"""An external schema registry, through confluent-kafka's own client (extra ``registry``)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tieline.api import ConfigError, ConfigProblem, FatalError, RetriableError, Schema
from tieline.broker.client_secrets import without_secrets
from tieline.registry.model.events import Reference
from tieline.registry.model.stored_schema import inline_references, parse_stored_schema, resolve_references

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema as RegistrySchema
    from confluent_kafka.schema_registry import SchemaReference, SchemaRegistryClient


_NUMBERS = (
    *("timeout", "max.retries", "retries.wait.ms", "retries.max.wait.ms"),
    *("cache.capacity", "cache.latest.ttl.sec"),
)
_DEFAULTS = {"timeout": 2.0, "max.retries": 0}  # the runtime retries itself, and can be stopped meanwhile


class RemoteSchemaStore:
    """A ``SchemaStore`` over HTTP. Safe for many threads. Ids and schemas are requested once.

    ``settings`` are the client's own (``url``, ``basic.auth.user.info``, ``ssl.ca.location``, …), as strings.
    Nothing is sent before the first call. Raises ``ConfigError`` if the client is not installed or rejects
    its settings.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        try:
            from confluent_kafka.schema_registry import SchemaRegistryClient
        except ImportError as error:
            fix = f"needs more packages ({error}): pip install 'tieline[registry]'"
            raise ConfigError([ConfigProblem("", "schema.registry.url", fix)]) from error
        try:
            typed = {key: float(v) if key in _NUMBERS else v for key, v in settings.items()}
            self.client: SchemaRegistryClient = SchemaRegistryClient({**_DEFAULTS, **typed})
        except (ValueError, TypeError, OSError) as error:  # OSError: a certificate cannot be read
            message = without_secrets(str(error), settings)
            raise ConfigError([ConfigProblem("", "schema.registry.url", message)]) from None
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, str], int] = {}
        self._schemas: dict[int, Schema] = {}

    def register(self, subject: str, schema: Schema) -> int:
        """Register a schema and return its id.

        Raises ``RetriableError`` if the registry is unavailable, ``FatalError`` if it rejects the schema.
        """
        from confluent_kafka.schema_registry import Schema as ClientSchema

        key = subject, schema.text
        with self._lock:
            if key not in self._ids:
                with translate_errors(f"register {subject}"):
                    self._ids[key] = self.client.register_schema(subject, ClientSchema(schema.text, "AVRO"))
            return self._ids[key]

    def schema(self, schema_id: int) -> Schema | None:
        """Return the schema of an id, or ``None`` if the registry does not know it.

        Raises ``RetriableError`` if the registry is unavailable, ``ValueError`` if the schema is not usable.
        """
        with self._lock:
            if schema_id not in self._schemas:
                try:
                    with translate_errors(f"look up id {schema_id}"):
                        response = self.client.get_schema(schema_id)
                except _NotFoundError:
                    return None
                self._schemas[schema_id] = self._parse(schema_id, response)
            return self._schemas[schema_id]

    def close(self) -> None:
        """Close the connections."""
        self.client.__exit__()  # type: ignore[no-untyped-call]

    def _parse(self, schema_id: int, response: RegistrySchema) -> Schema:
        """Return a schema with all its references. Raises ``ValueError``."""
        text = response.schema_str or ""
        if response.references and response.schema_type == "AVRO":
            references = map(_reference, response.references)
            texts = resolve_references(references, lambda reference: self._fetch(schema_id, reference))
            text = inline_references(text, texts)
        return parse_stored_schema(schema_id, response.schema_type or "AVRO", text)

    def _fetch(self, schema_id: int, reference: Reference) -> tuple[str, list[Reference]]:
        subject, version = reference.subject, reference.version
        try:
            with translate_errors(f"look up {subject} version {version}"):
                schema = self.client.get_version(subject, version, deleted=True).schema
        except _NotFoundError:
            raise ValueError(
                f"the schema with id {schema_id} refers to version {version} of subject {subject!r}, and the"
                " registry has no such version. Register it there again"
            ) from None
        return schema.schema_str or "", [*map(_reference, schema.references or ())]


class _NotFoundError(FatalError):
    """The registry answered 404."""


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Translate errors of the client that occur inside.

    ``RetriableError`` means that the registry is unavailable, ``FatalError`` that it rejects the request.
    ``what``: the request, for the message.
    """
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    try:
        yield
    except SchemaRegistryError as error:
        status = error.http_status_code
        if status in (408, 429) or status >= 500:
            raise RetriableError(f"the schema registry could not {what}: {error}") from error
        error_type = _NotFoundError if status == 404 else FatalError
        raise error_type(f"the schema registry refused to {what}: {error}") from error
    except Exception as error:  # of its HTTP library: connection refused, time-out, TLS
        raise RetriableError(
            f"the schema registry is unavailable ({what}): {type(error).__name__}: {error}"
        ) from error


def _reference(reference: SchemaReference) -> Reference:
    return Reference(str(reference.name), str(reference.subject), int(reference.version or 0))
