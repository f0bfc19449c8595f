"""The connectors that come with tieline; each is written against :mod:`tieline.api` alone."""
