"""``insert_header`` adds a header to every record, as Kafka Connect's InsertHeader."""

from __future__ import annotations

from collections.abc import Sequence

from tieline.api import AnyRecord, Config, Transform, setting


class InsertHeaderConfig(Config):
    """The settings of Kafka Connect's InsertHeader."""

    header: str = setting("header", doc="The header's key.", min_length=1)
    value_literal: str = setting("value.literal", doc="The header's value, as UTF-8.")


class InsertHeader(Transform[InsertHeaderConfig]):
    """Adds one header after the existing ones."""

    config_type = InsertHeaderConfig

    def __init__(self, config: InsertHeaderConfig) -> None:
        super().__init__(config)
        self._added = ((config.header, config.value_literal.encode()),)

    def apply(self, batch: Sequence[AnyRecord]) -> Sequence[AnyRecord | None]:
        """Return the records with the header."""
        return [record._replace(headers=record.headers + self._added) for record in batch]
