"""What support needs to know about a worker, without its secrets and records; what happened to a record."""
