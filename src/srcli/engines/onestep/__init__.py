"""One-step super-resolution on Stable Diffusion 2.1-base: OSEDiff, PiSA-SR and GDPO-SR."""
