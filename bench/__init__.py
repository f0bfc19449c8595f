"""What tieline can do, measured: `make bench`. Each figure is one JSON line; see README.md."""
