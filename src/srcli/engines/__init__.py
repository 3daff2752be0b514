"""Engines: one folder each, and what they share."""
