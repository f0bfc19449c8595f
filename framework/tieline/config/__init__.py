"""From configuration files to a plan; every problem is reported at once."""
