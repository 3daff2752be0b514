"""Measurements. Each module is a program of its own that prints Markdown; `python -m benchmarks` runs them all."""
