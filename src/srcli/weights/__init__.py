"""Weights: what is locked, where it lies, whether it is what the lock says, and strict opening."""
