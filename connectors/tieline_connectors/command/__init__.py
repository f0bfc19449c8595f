"""The command sink: what people and programs wish, done at most once, by who may, in time."""
