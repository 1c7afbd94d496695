"""Benchmarks; never imported by the product. `make bench` runs them all."""
