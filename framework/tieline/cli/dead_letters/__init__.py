"""``tieline dlq``: how letters, jobs and the progress of a replay are shown."""
