"""Where schemas have ids: the topic ``_schemas`` and the registry that serves it, or one elsewhere."""
