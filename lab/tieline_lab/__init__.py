"""Real servers on this machine: for ``tieline lab``, and for the tests."""
