"""What `tieline new connector` copies: two distributions that work as they are."""
