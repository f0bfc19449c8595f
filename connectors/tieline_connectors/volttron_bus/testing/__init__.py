"""For tests: a stand-in for a platform's router."""
