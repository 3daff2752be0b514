"""No network: a picture whose colours come from strokes and a reference alone."""
