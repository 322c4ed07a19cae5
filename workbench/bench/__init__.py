"""Benchmarks: figures with targets, measured on this machine. They are run by hand and are never tests."""
