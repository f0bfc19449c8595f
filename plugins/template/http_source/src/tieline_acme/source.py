"""Polls an HTTP service that answers with JSON, each item once, also across restarts.

The service at ``url`` takes ``?after=ID&limit=COUNT`` and answers with a list of items whose ids grow, such
as ``[{"id": 1, "value": 0.5}]``. Replace that with what your own service takes and answers.
"""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from tieline.api import (
    Config,
    FatalError,
    RetriableError,
    Secret,
    SourceConnector,
    SourceContext,
    SourceRecord,
    SourceTask,
    identity,
    setting,
)


class AcmeConfig(Config):
    """What a user may set."""

    url: str = setting("url", doc="The URL to poll, http:// or https://.")
    topic: str = setting("topic", doc="The topic to write to.")
    token: Secret | None = setting("token", None, doc="Sent as a bearer token, if it is set.")
    interval_ms: int = setting("interval.ms", 1000, ge=1, doc="The pause between two polls without an item.")
    timeout_ms: int = setting("timeout.ms", 5000, ge=1, doc="How long the service may take to answer.")


class AcmeTask(SourceTask[AcmeConfig]):
    """What does the work, in one thread."""

    def __init__(self, context: SourceContext, config: AcmeConfig) -> None:
        super().__init__(context, config)
        self.interrupted = threading.Event()
        self.partition = {"url": config.url}
        self.last = 0

    def start(self) -> None:
        """Resume from the offset that was saved for this source partition."""
        saved = self.context.offset(self.partition) or {}
        self.last = int(saved.get("id") or 0)

    def poll(self, max_records: int, max_wait: float) -> list[SourceRecord]:
        """Return the next records, each with the offset from which to resume after it."""
        records = [self.record(item) for item in self.items(max_records)]
        if not records:
            self.interrupted.wait(min(max_wait, self.config.interval_ms / 1000))
        return records

    def items(self, limit: int) -> list[dict[str, Any]]:
        """Ask the service once. The runtime waits after a ``RetriableError``, and calls ``poll`` again."""
        query = urllib.parse.urlencode({"after": self.last, "limit": limit})
        request = urllib.request.Request(f"{self.config.url}?{query}")
        if self.config.token is not None:
            request.add_header("Authorization", f"Bearer {self.config.token.get_secret_value()}")
        try:
            with urllib.request.urlopen(request, timeout=self.config.timeout_ms / 1000) as response:
                items: list[dict[str, Any]] = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                if error.code in (400, 401, 403, 404):  # waiting does not help
                    raise FatalError(f"{self.config.url} answers {error.code} {error.reason}") from error
                raise RetriableError(f"{self.config.url} answers {error.code} {error.reason}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:  # no answer, or half of one
            raise RetriableError(f"{self.config.url} gives no answer: {error}") from error
        return items

    def record(self, item: dict[str, Any]) -> SourceRecord:
        """Return an item as a record. Its id is made of what tells it apart, and is the same each time."""
        self.last = item["id"]
        return SourceRecord(
            topic=self.config.topic,
            value=item,
            source_partition=self.partition,
            source_offset={"id": self.last},
            headers=identity(self.config.url, self.last, digest_of=json.dumps(item, sort_keys=True).encode()),
        )

    def interrupt(self) -> None:
        """From another thread: end a poll that waits."""
        self.interrupted.set()


class AcmeSource(SourceConnector[AcmeConfig]):
    """Polls an HTTP service that answers with JSON."""

    config_type = AcmeConfig
    task_type = AcmeTask
