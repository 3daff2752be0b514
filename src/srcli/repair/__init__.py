"""What is mended in a picture before an engine gets it: scratches, tone."""
