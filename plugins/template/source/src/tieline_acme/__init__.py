"""A source for tieline."""
