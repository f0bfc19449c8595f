"""For authors of connectors: fakes that are verified on the real thing, and kits of tests."""
