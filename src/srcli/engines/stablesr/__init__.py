"""StableSR: Stable Diffusion 2.1, conditioned on the picture by a time-aware encoder."""
