"""Points of devices, whatever stores their values: questions, live values, pages."""
