"""``tieline query`` and ``tieline mongo``: questions about what the sink has stored."""
