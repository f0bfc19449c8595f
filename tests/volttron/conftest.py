"""What several files of this folder start."""

import pytest

from tieline_lab.volttron import VolttronPlatform, why_not


@pytest.fixture
def platform(tmp_path):
    """One of our own, without a driver, to be stopped and killed."""
    if reason := why_not():
        pytest.skip(reason)
    platform = VolttronPlatform(tmp_path)
    platform.start()
    yield platform
    platform.stop()
