"""Check schemas against their released versions, and render their reference page."""
