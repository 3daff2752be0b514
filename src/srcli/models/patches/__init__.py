"""Everything that changes a stock network of diffusers or transformers: hooks, processors and replaced `forward`s.

`install.py` is the only way in. It fixes the order of the changes and takes each of them back. Weights in 8 bits are
not among them: they are a precision, which placing a network on its device decides.
"""
