"""The picture that leads: kept as levels, and made floats where and when some of it is used."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def pixels_to_tensor(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Tensor:
    """(H, W, 3) levels as (1, 3, H, W), in the same memory."""
    return torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1)[None]


def to_unit_float(hint: Tensor) -> Tensor:
    """Levels as numbers in 0..1, the same ones whatever part it is; a hint of such numbers is as it should be."""
    if hint.is_floating_point():
        return hint
    most = torch.iinfo(hint.dtype).max
    # Where the levels are: an accelerator would multiply by the inverse, which is not the same to the last bit.
    return hint.to(torch.float32, memory_format=torch.contiguous_format) / most
