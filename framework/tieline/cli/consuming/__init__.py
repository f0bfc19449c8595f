"""``tieline consume``: which records are wanted, what they hold, how they are shown."""
