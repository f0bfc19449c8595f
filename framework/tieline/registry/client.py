"""A schema registry elsewhere, through confluent-kafka's own client (extra ``registry``)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tieline.api import ConfigError, ConfigProblem, FatalError, RetriableError, Schema
from tieline.broker.client_secrets import without_secrets
from tieline.registry.model.events import Reference
from tieline.registry.model.stored_schema import readable_schema, resolve, written_out

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema as RegistrySchema
    from confluent_kafka.schema_registry import SchemaReference, SchemaRegistryClient


_NUMBERS = (
    *("timeout", "max.retries", "retries.wait.ms", "retries.max.wait.ms"),
    *("cache.capacity", "cache.latest.ttl.sec"),
)
_BOUNDED = {"timeout": 2.0, "max.retries": 0}  # the runtime waits and tries again, and can be stopped then


class RemoteSchemaStore:
    """A ``SchemaStore`` over HTTP. Safe for many threads; what was found once is not asked again.

    ``settings`` are the client's own (``url``, ``basic.auth.user.info``, ``ssl.ca.location``, …), as text.
    Raises ``ConfigError`` where the client is not installed or refuses its settings.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        try:
            from confluent_kafka.schema_registry import SchemaRegistryClient
        except ImportError as error:
            way_out = f"needs more packages ({error}): pip install 'tieline[registry]'"
            raise ConfigError([ConfigProblem("", "schema.registry.url", way_out)]) from error
        try:
            given = {k: float(v) if k in _NUMBERS else v for k, v in settings.items()}
            self.client: SchemaRegistryClient = SchemaRegistryClient({**_BOUNDED, **given})
        except (ValueError, TypeError, OSError) as error:  # OSError: certificates that cannot be read
            message = without_secrets(str(error), settings)
            raise ConfigError([ConfigProblem("", "schema.registry.url", message)]) from None
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, str], int] = {}
        self._by_id: dict[int, Schema] = {}

    def register(self, subject: str, schema: Schema) -> int:
        """Register it. Raises ``RetriableError`` while unavailable, ``FatalError`` if it is refused."""
        from confluent_kafka.schema_registry import Schema as Asked

        key = subject, schema.text
        with self._lock:
            if key not in self._ids:
                asked = Asked(schema.text, "AVRO")
                with told(f"register {subject}"):
                    self._ids[key] = self.client.register_schema(subject, asked)
            return self._ids[key]

    def schema(self, schema_id: int) -> Schema | None:
        """Fetch it. Raises ``RetriableError`` while unavailable, ``ValueError`` if it is not usable."""
        with self._lock:
            if schema_id not in self._by_id:
                try:
                    with told(f"look up id {schema_id}"):
                        found = self.client.get_schema(schema_id)
                except _NotFound:
                    return None
                self._by_id[schema_id] = self._read(schema_id, found)
            return self._by_id[schema_id]

    def _read(self, schema_id: int, found: RegistrySchema) -> Schema:
        """With all that it refers to. Raises ``ValueError`` where that is not there, or has no end."""
        text = found.schema_str or ""
        if found.references and found.schema_type == "AVRO":
            texts = resolve(map(_reference, found.references), lambda asked: self._version(schema_id, asked))
            text = written_out(text, texts)
        return readable_schema(schema_id, found.schema_type or "AVRO", text)

    def _version(self, schema_id: int, asked: Reference) -> tuple[str, list[Reference]]:
        try:
            with told(f"look up {asked.subject} version {asked.version}"):
                found = self.client.get_version(asked.subject, asked.version, deleted=True).schema
        except _NotFound:
            raise ValueError(
                f"the schema with id {schema_id} refers to version {asked.version} of subject"
                f" {asked.subject!r}, and the registry has no such version. Register it there again"
            ) from None
        return found.schema_str or "", [*map(_reference, found.references or ())]

    def close(self) -> None:
        """Close its connections."""
        self.client.__exit__()  # type: ignore[no-untyped-call]


def _reference(given: SchemaReference) -> Reference:
    return Reference(str(given.name), str(given.subject), int(given.version or 0))


class _NotFound(FatalError):
    """404."""


@contextmanager
def told(what: str) -> Iterator[None]:
    """The client's errors as ours: ``RetriableError`` where it is away, ``FatalError`` where it refuses."""
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    try:
        yield
    except SchemaRegistryError as error:
        status = error.http_status_code
        if status in (408, 429) or status >= 500:
            raise RetriableError(f"the schema registry could not {what}: {error}") from error
        kind = _NotFound if status == 404 else FatalError
        raise kind(f"the schema registry refused to {what}: {error}") from error
    except Exception as error:  # its HTTP library's own: connection refused, time-out, TLS
        raise RetriableError(
            f"the schema registry is away ({what}): {type(error).__name__}: {error}"
        ) from error
