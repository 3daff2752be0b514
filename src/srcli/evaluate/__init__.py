"""Measuring results: pairs by name, metrics over many pictures, tables; and test sets to measure on."""
