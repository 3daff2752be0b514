"""DDColor: one pass of a network that predicts colour and keeps luminance."""
