"""``insert_header``: the same header on every record (Kafka Connect's InsertHeader)."""

from __future__ import annotations

from collections.abc import Sequence

from tieline.api import AnyRecord, Config, Transform, setting


class InsertHeaderConfig(Config):
    """Connect's keys."""

    header: str = setting("header", doc="The header's key.", min_length=1)
    value_literal: str = setting("value.literal", doc="The header's value, as UTF-8.")


class InsertHeader(Transform[InsertHeaderConfig]):
    """Adds one header behind those that are there."""

    config_type = InsertHeaderConfig

    def __init__(self, config: InsertHeaderConfig) -> None:
        super().__init__(config)
        self._added = ((config.header, config.value_literal.encode()),)

    def apply(self, batch: Sequence[AnyRecord]) -> Sequence[AnyRecord | None]:
        """The same records with the header."""
        return [record._replace(headers=record.headers + self._added) for record in batch]
