"""A small Hub for tests: what huggingface_hub asks of the real one, over real HTTP on loopback."""

from tests.hub.server import Fault, Hub

__all__ = ["Fault", "Hub"]
