"""Sampling: the loop, the noise and the tiles, independent of any model."""
