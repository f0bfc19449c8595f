"""MongoDB: the sink, and the questions people ask of what it stored."""
