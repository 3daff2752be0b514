"""Sampling: the loop, the noise and the tiles. Nothing here knows of any model."""
