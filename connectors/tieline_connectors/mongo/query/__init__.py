"""``tieline query`` and ``tieline mongo``: show what the sink has stored, and remove duplicates."""
