"""Reads and writes files line by line: the smallest complete source and sink."""
