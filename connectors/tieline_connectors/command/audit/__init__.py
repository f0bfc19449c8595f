"""The audit log: a chain of lines, each naming the one before it."""
