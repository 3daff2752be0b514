"""Reads, converts and writes pictures with their metadata and colour profiles. Does not use torch."""
