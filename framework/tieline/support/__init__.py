"""What a person who helps needs to know of a worker, without its secrets and without its records."""
