"""Which connector acts on a topic: known on both backends, also if another was first."""

import pytest

from tieline.api import DataDirInUseError
from tieline.runtime.sink.claims import Claim, Claims


def test_a_claimed_topic_is_refused_to_another_connector_even_later(kit):
    broker = kit.broker
    assert Claims(broker, 20.0).claim("first", "claimed", "campus", lambda: 3) == Claim("first", 3)
    again = Claims(broker, 20.0)
    assert again.claim("first", "claimed", "campus", lambda: 6) == Claim("first", 3)
    for _ in range(2):
        with pytest.raises(DataDirInUseError, match="belong to the connector first"):
            again.claim("second", "claimed", "campus", lambda: 6)
    assert again.claim("second", "claimed", "annex", lambda: 6) == Claim("second", 6)
    assert again.claim("second", "claimed too", "campus", lambda: 1) == Claim("second", 1)
