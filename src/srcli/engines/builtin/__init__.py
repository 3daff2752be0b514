"""The built-in engine: a small diffusion model that is part of the package."""
