"""Enlarge, restore, stylize and colorize photographs with diffusion models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srcli.api import Pipeline, Result

__version__ = "0.1.0"
__all__ = ["Pipeline", "Result", "__version__"]


def __getattr__(name: str) -> object:
    """The library is loaded when it is first asked for; the version costs nothing."""
    if name in __all__:
        return getattr(import_module("srcli.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
