"""The local log: topics, partitions, offsets and groups of one process, in one SQLite file."""
