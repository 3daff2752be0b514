"""PASD: Stable Diffusion 1.5, conditioned on the picture by a ControlNet and pixel-aware cross-attention."""
