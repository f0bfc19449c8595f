"""Benchmarks of tieline, run by `make bench`. Each figure is one JSON line; README.md explains them."""
