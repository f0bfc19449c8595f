"""The promises of a connector, as tests: subclass, give the fixtures, run pytest.

    class TestMySource(SourceContract):
        connector = MySource                       # or a task class, as in the entry point

        @pytest.fixture
        def settings(self, tmp_path):              # the flat map of a working configuration
            return {"file": str(tmp_path / "in.txt"), "topic": "t"}

        @pytest.fixture
        def feed(self, settings):                  # make so many more records readable
            def feed(count): ...
            return feed

    class TestMySink(SinkContract):
        connector = MySink

        @pytest.fixture
        def settings(self, tmp_path): ...

        @pytest.fixture
        def written(self, settings):               # the values that are safe outside
            return lambda: read_values(settings)

These fixtures are required. Each of the others enables further promises; the end of pytest's run lists
what was not tested, with the fixture that it needs.

| fixture | of | what it is |
|---|---|---|
| `outage` | both | settings whose external system cannot be reached |
| `break_it`, `heal_it` | both | functions: make it unavailable in the middle of a run, and available again |
| `worker_settings` | both | settings of a worker that the kit runs and kills with SIGKILL; `{}` is enough |
| `bad_value` | sink | a value that can never be written |
| `break_after` | sink | a function: take so many more values, then be unavailable until `heal_it` |

Class attributes: `soon` and `patience` (time limits), `settle` (source), `idempotent` with
`not_idempotent_because`, `in_order` (sink). Override `value` (sink) if the sink does not take any text.

Every call of the task has a time limit: a call that hangs fails its test, and shows where it is.
"""

from tieline.testing.sink_contract import SinkContract
from tieline.testing.source_contract import SourceContract

__all__ = ["SinkContract", "SourceContract"]
