"""A worker: its connectors, their tasks' threads, and the factory that builds them."""
