"""The runtime: loads connectors, runs their tasks, keeps the promises."""
