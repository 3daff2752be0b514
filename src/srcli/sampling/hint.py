"""The hint, the picture that conditions a model: kept as 8 or 16-bit integers, and converted to floats on use."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def pixels_to_tensor(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Tensor:
    """(H, W, 3) integers as a (1, 3, H, W) tensor that shares their memory."""
    return torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1)[None]


def to_unit_float(hint: Tensor) -> Tensor:
    """Convert 8 or 16-bit integers to float32 in 0..1, identically for any crop; floats are returned unchanged."""
    if hint.is_floating_point():
        return hint
    maximum = torch.iinfo(hint.dtype).max
    # On the CPU, where hints are: an accelerator would multiply by the inverse, which differs in the last bit.
    return hint.to(torch.float32, memory_format=torch.contiguous_format) / maximum
