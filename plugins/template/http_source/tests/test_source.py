"""The contract that every source keeps, and what this one does beyond it."""

import pytest
from service import Service
from tieline_acme.source import AcmeSource

from tieline.testing.contract import SourceContract


class TestAcmeSource(SourceContract):
    connector = AcmeSource

    @pytest.fixture
    def service(self):
        """The external system: a local HTTP server of this test's own."""
        service = Service()
        service.start()
        yield service
        service.heal()
        service.stop()

    @pytest.fixture
    def settings(self, service):
        """A working configuration."""
        return {"url": service.url, "topic": "items", "token": "a secret of this test", "timeout.ms": "300"}

    @pytest.fixture
    def feed(self, service):
        """Make so many more records readable, each unlike every other."""

        def feed(count):
            first = len(service.items) + 1
            service.items += [{"id": number, "value": 0.5} for number in range(first, first + count)]

        return feed

    @pytest.fixture
    def outage(self):
        """A configuration whose external system cannot be reached."""
        return {"url": "http://127.0.0.1:1/", "topic": "items", "token": "a secret of this test"}

    @pytest.fixture(params=["stopped", 503, 429, "silent", "no JSON"])
    def break_it(self, service, request):
        """Make the external system unavailable, in the middle of a run, in each way that it can fail."""
        return lambda: service.fail(request.param)

    @pytest.fixture
    def heal_it(self, service):
        """Make it available again, with everything that it held."""
        return service.heal

    @pytest.fixture
    def worker_settings(self):
        """Settings of the worker that the kit runs and kills; remove it if a worker cannot reach yours."""
        return {}
