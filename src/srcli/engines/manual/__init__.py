"""The manual engine: no network, only the colours of strokes and a reference picture."""
