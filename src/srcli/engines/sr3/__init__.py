"""SR3: a U-Net over pixels, conditioned on the bicubic enlargement."""
