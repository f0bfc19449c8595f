"""⑦ to ⑪: consume, convert, put, track, commit."""
