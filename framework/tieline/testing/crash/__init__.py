"""Crashes by list: a worker dies at a named step of a record's journey."""
