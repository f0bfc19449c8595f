"""Where to continue in a partition without a record at the position."""

import pytest

from tieline.api import FatalError, TopicPartition
from tieline.broker.kafka.resets import reset


@pytest.mark.parametrize(
    ("end", "holds"), [(12, "it holds 9 to 11, and"), (9, "it is empty (the next offset is 9), and")]
)
def test_a_refusal_says_what_the_partition_holds(end, holds):
    with pytest.raises(FatalError) as caught:
        reset("connect-s", TopicPartition("t", 0), 5, 9, end, "error")
    assert holds in str(caught.value)
    assert "the 4 offsets from 5 to 8 have expired" in str(caught.value)
