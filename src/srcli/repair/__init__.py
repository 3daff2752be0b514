"""Repairs of a picture before an engine gets it: scratches, tones."""
