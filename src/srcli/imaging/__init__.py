"""Pictures in and out with nothing lost: reading, writing, metadata, colour and size. Knows no torch."""
