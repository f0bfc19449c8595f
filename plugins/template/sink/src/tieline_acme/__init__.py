"""A sink for tieline."""
