"""How similar two pictures are. One function per metric, on numpy arrays of levels 0..255; imports no torch."""
