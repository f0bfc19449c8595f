"""Writing documents, and what became of each."""
