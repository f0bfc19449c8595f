"""Copies of a worker's disk state: `taking` makes one beside a running worker, `restoring` brings it back."""
