"""Shared by the engines that sample latents of a VAE."""
