"""Answers questions about a file of readings, beside the sink that writes it."""
