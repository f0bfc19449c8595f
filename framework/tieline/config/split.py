"""Splits the flat map of a connector by what its settings belong to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from tieline.config.settings import ConnectorSettings
from tieline.config.unsupported import IGNORED

_COMMON_PREFIXES = (
    "key.converter.",
    "value.converter.",
    "transforms.",
    "producer.override.",
    "consumer.override.",
)


class Split(NamedTuple):
    """One connector's flat map, split by what the settings belong to."""

    common: dict[str, str]
    """Those that every connector has."""
    prefixed: dict[str, str]
    """Those of its converters, transforms and Kafka clients."""
    connector: dict[str, str]
    """The connector's own."""


def split(
    settings: Mapping[str, str], common: type[ConnectorSettings], connector_keys: Collection[str] = ()
) -> Split:
    """Split a flat map. Keys in ``IGNORED`` are left out, unless the connector reads them.

    ``connector_keys``: those that the connector itself reads, even if they belong to its client, too.
    """
    known = set(common.keys())
    out = Split({}, {}, {})
    for key, value in settings.items():
        if key in known:
            out.common[key] = value
        elif key.startswith(_COMMON_PREFIXES):
            out.prefixed[key] = value
            if key in connector_keys:
                out.connector[key] = value
        elif key in connector_keys or key not in IGNORED:
            out.connector[key] = value
    return out


def below(prefix: str, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings below ``prefix.``, without it."""
    start = f"{prefix}."
    return {key[len(start) :]: value for key, value in settings.items() if key.startswith(start)}
