"""Dead letters beside a running worker: read, show, replay and drop them."""
