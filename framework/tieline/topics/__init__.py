"""A worker's topics beside the running worker: read and decode records, write records."""
