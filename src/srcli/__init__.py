"""Enlarge, restore, stylize and colorize photographs with diffusion models."""

__version__ = "0.1.0"
