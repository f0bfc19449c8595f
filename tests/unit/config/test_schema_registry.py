"""The settings of an external registry's client, for a converter and for the command line."""

from __future__ import annotations

import pytest

from tieline.config.schema_registry import registry_problems, registry_settings

pytest.importorskip("confluent_kafka.schema_registry", reason="the extra 'registry' is not installed")

WORKERS = "http://worker:8081"
OWN = "http://own:8081"


@pytest.mark.parametrize(
    ("converter", "worker_url", "settings"),
    [
        ({}, "", {}),
        ({"timeout": "3"}, "", {}),
        ({}, WORKERS, {"url": WORKERS}),
        ({"url": "", "timeout": "3"}, WORKERS, {"url": WORKERS, "timeout": "3"}),
        ({"url": OWN}, WORKERS, {"url": OWN}),
        ({"url": OWN}, "", {"url": OWN}),
    ],
)
def test_a_converters_registry_precedes_the_workers(converter, worker_url, settings):
    assert registry_settings(converter, worker_url) == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "registry:8081"}, "begins with http:// or https://"),
        ({"url": OWN, "max.retries": "many"}, "many"),
        ({"url": OWN, "unknown.key": "1"}, "unknown.key"),
    ],
)
def test_settings_that_the_client_would_reject_are_problems(settings, message):
    (problem,) = registry_problems(settings)
    assert problem.key == "schema.registry.url"
    assert message in problem.message


def test_settings_of_a_client_are_checked_without_a_request():
    assert registry_problems({"url": "http://127.0.0.1:1", "timeout": "3"}) == []
