"""Writes documents, and reports the result for each."""
