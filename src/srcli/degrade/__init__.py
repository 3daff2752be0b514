"""Degradations that training pairs are made with: Real-ESRGAN's second-order chain, and damage of old prints."""
