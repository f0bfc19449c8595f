"""The HTTP server that the schema registry and a worker's other interfaces share."""
