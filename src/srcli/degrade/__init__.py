"""Degradations for training pairs: Real-ESRGAN's second-order chain, and damage of old prints."""
