"""The plugin by which pytest prints what the contract kit could not test, also under pytest-xdist.

An entry point of the same name loads it into every run: under ``-n`` the process that prints imports no test.
"""

from __future__ import annotations

import pytest

from tieline.testing.promises import untested


def pytest_configure(config: pytest.Config) -> None:
    """Create the list, which stays empty without a contract."""
    untested(config)
