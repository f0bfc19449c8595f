"""Writes readings and their rollups, and deletes expired ones."""
