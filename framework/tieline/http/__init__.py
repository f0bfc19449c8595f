"""The HTTP server that the registry and the worker share."""
