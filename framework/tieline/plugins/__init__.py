"""Plugins: which are installed, and where they are looked for."""
