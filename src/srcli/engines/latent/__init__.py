"""What engines over the latents of a VAE share."""
