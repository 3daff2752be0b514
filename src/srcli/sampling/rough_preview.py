"""The picture that a sampler expects, in rough colours and without a decoder: one weighted sum per latent."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Least squares of pictures on their latents in Stable Diffusion 1.4's autoencoder (K. Turner, "Decoding latents to RGB
# without upscaling", discuss.huggingface.co, 2022). One row per channel of the latents; the sums are red, green and
# blue in -1..1.
_LATENTS_TO_RGB = torch.tensor(
    [[0.298, 0.207, 0.208], [0.187, 0.286, 0.173], [-0.158, 0.189, 0.264], [-0.184, -0.271, -0.473]]
)


def estimate_levels(expected: Tensor) -> NDArray[np.uint8] | None:
    """Bytes (h, w, 3) of scaled latents or of a picture in -1..1, both (1, channels, h, w); None of anything else."""
    channels = expected.shape[1]
    if channels not in (3, 4):
        return None
    x = expected[0].float().cpu()
    rgb = x if channels == 3 else torch.einsum("chw,cr->rhw", x, _LATENTS_TO_RGB)
    levels = (rgb.nan_to_num() / 2 + 0.5).clamp(0, 1).mul(255).round()
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy().astype(np.uint8))
