"""Metrics of a worker for Prometheus: an endpoint, a text file, and the table of what they contain."""
