"""``tieline produce``: from lines that people write to records on a topic."""
