"""The sink ``history``: readings and their rollups in a SQLite file, for charts and queries."""
