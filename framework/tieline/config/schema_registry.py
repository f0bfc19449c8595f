"""The settings of the client of an external schema registry, for the plan and for the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tieline.api import ConfigError, ConfigProblem
from tieline.config.unsupported import url_problem
from tieline.registry.client import RemoteSchemaStore


def registry_settings(converter: Mapping[str, str], worker_url: str) -> dict[str, str]:
    """Return the client's settings; empty if the schemas are in the broker's own topic.

    ``converter``: the settings below a converter's ``schema.registry.``. ``worker_url``: the worker's
    registry, which is used if the converter names none; empty if the worker has none either.
    """
    url = converter.get("url") or worker_url
    return {**converter, "url": url} if url else {}


def registry_problems(settings: Mapping[str, str]) -> Sequence[ConfigProblem]:
    """Return the problems of a client's settings. Nothing is sent to the registry."""
    if problem := url_problem(settings["url"]):
        return [ConfigProblem("", "schema.registry.url", problem)]
    try:
        RemoteSchemaStore(settings).close()
    except ConfigError as error:
        return error.problems
    return []
