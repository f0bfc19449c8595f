"""MongoDB: the sink, and queries of what it has stored."""
