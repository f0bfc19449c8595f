"""② The spool: what a source that cannot be read again has received."""
