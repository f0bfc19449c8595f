"""Posts each record as JSON to an HTTP service. Replace the request with what your own service takes."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Sequence

from tieline.api import (
    ID_HEADER,
    Config,
    DataError,
    FatalError,
    RetriableError,
    Secret,
    SinkConnector,
    SinkRecord,
    SinkTask,
    TopicPartition,
    header,
    setting,
)

_TRY_AGAIN = (408, 425, 429)  # and all from 500
_LOOK_AT_IT = (401, 403, 404)  # waiting does not help, and no record is at fault


class AcmeConfig(Config):
    """What a user may set."""

    url: str = setting("url", doc="The URL to post to, http:// or https://.")
    token: Secret | None = setting("token", None, doc="Sent as a bearer token, if it is set.")
    timeout_ms: int = setting("timeout.ms", 5000, ge=1, doc="How long the service may take to answer.")


class AcmeTask(SinkTask[AcmeConfig]):
    """What does the work, in one thread. A record is safe once the service has answered."""

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Post each record; name what the service rejects, by its index in the batch."""
        bad: dict[int, Exception] = {}
        reached: dict[TopicPartition, int] = {}
        for index, record in enumerate(batch):
            try:
                self.post(record, reached)
            except (TypeError, ValueError) as error:  # not JSON, or rejected by the service
                bad[index] = error
            if not bad:  # what comes after a bad record is offered again if an outage follows
                reached[record.consumed_from] = record.offset + 1
        if bad:
            raise DataError(bad)

    def post(self, record: SinkRecord, reached: dict[TopicPartition, int]) -> None:
        """Make one request. The runtime waits after a ``RetriableError``, and offers the rest again.

        Raises ``ValueError`` if the service rejects the record.
        """
        record_id = (header(record, ID_HEADER) or b"").decode()
        body = json.dumps({"id": record_id, "value": record.value}).encode()
        request = urllib.request.Request(self.config.url, body, method="POST")
        request.add_header("Content-Type", "application/json")
        request.add_header("Idempotency-Key", record_id)  # a record may come again after a crash
        if self.config.token is not None:
            request.add_header("Authorization", f"Bearer {self.config.token.get_secret_value()}")
        try:
            urllib.request.urlopen(request, timeout=self.config.timeout_ms / 1000).close()
        except urllib.error.HTTPError as error:
            with error:
                message = f"{self.config.url} answers {error.code} {error.reason}"
            if error.code >= 500 or error.code in _TRY_AGAIN:
                raise RetriableError(message, reached=reached) from error
            if error.code in _LOOK_AT_IT:
                raise FatalError(message) from error
            raise ValueError(message) from error
        except (OSError, http.client.HTTPException) as error:
            message = f"{self.config.url} gives no answer: {error}"
            raise RetriableError(message, reached=reached) from error


class AcmeSink(SinkConnector[AcmeConfig]):
    """Posts records to an HTTP service."""

    config_type = AcmeConfig
    task_type = AcmeTask
