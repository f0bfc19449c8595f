"""Files, line by line: the smallest complete source and sink."""
