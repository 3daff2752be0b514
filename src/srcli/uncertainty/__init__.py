"""How much of a result its input does not determine: a map, made of other versions of the result."""
