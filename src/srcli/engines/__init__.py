"""Engines, found by name and imported only when one is asked for."""
