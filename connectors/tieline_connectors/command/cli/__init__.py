"""``tieline command`` and ``tieline policy``."""
