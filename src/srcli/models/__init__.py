"""Networks and the maps between key names. Nothing here reads a file."""
