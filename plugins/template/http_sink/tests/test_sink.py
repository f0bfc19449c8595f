"""The contract that every sink keeps, and what this one does beyond it."""

import pytest
from service import Service
from tieline_acme.sink import AcmeSink

from tieline.testing.contract import SinkContract


class TestAcmeSink(SinkContract):
    connector = AcmeSink
    idempotent = True  # a record that comes again changes nothing; False needs not_idempotent_because = "…"

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
        return {"url": service.url, "token": "a secret of this test", "timeout.ms": "300"}

    @pytest.fixture
    def written(self, service):
        """What is safe outside, read by other means than the sink's."""
        return lambda: list(service.values.values())

    @pytest.fixture
    def bad_value(self):
        """A value that can never be written."""
        return "rejected by the service"

    @pytest.fixture
    def outage(self):
        """A configuration whose external system cannot be reached."""
        return {"url": "http://127.0.0.1:1/", "token": "a secret of this test"}

    @pytest.fixture(params=["stopped", 503, 429, "silent"])
    def break_it(self, service, request):
        """Make the external system unavailable, in the middle of a run, in each way that it can fail."""
        return lambda: service.fail(request.param)

    @pytest.fixture
    def break_after(self, service):
        """Let the external system take so many more records, and be unavailable then."""
        return lambda count: setattr(service, "takes", count)

    @pytest.fixture
    def heal_it(self, service):
        """Make it available again."""
        return service.heal

    @pytest.fixture
    def worker_settings(self):
        """Settings of the worker that the kit runs and kills; remove it if a worker cannot reach yours."""
        return {}
