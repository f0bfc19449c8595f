"""The schema registry: ids of schemas in the topic ``_schemas``, over HTTP, or in an external registry."""
