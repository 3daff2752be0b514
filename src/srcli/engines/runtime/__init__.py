"""Where engines compute: the device, its memory, and what is done when memory runs out."""
