"""Where schemas have ids: the ``_schemas`` topic, or a registry elsewhere."""
