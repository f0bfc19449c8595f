"""The promises of a connector, as tests: subclass, say how to reach the outside, run pytest.

    class TestMySource(SourceContract):
        connector = MySource

        @pytest.fixture
        def settings(self, tmp_path):              # the flat map of a working configuration
            return {"file": str(tmp_path / "in.txt"), "topic": "t"}

        @pytest.fixture
        def feed(self, settings):                  # make so many more records readable
            def feed(count): ...
            return feed

A source whose records cannot be asked for again (``replayable = False``) is not asked for them again;
its ``feed`` is called once the task has started.
"""

from tieline.testing.sink_contract import SinkContract
from tieline.testing.source_contract import SourceContract

__all__ = ["SinkContract", "SourceContract"]
