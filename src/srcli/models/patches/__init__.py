"""All changes to networks of diffusers and transformers: hooks, attention processors and replaced `forward`s.

They are only installed by `install.py`, which fixes their order and can remove each of them. Weights in 8 bits are
not a patch but a precision, chosen when a network is placed on its device.
"""
