"""``tieline dev``: one source or sink from one file, run by a real worker and reloaded when it changes."""
