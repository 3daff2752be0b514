"""Measure results: pairs by name, metrics over many pictures, tables; and make test sets."""
