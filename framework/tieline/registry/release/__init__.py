"""Checks of released schemas, and their reference page."""
