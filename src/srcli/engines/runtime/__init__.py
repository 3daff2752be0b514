"""The device, its memory budget, and the fallback when memory runs out."""
