"""The message formats: one ``OWNER/Name.avsc`` a schema. Read them with ``tieline.api.Schema.named``."""
