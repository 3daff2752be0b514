"""JPEG's losses as numbers: colour conversion, halved chroma, quantised 8x8 cosine blocks. No codec, so differentiable.

As in the code that published models were trained with, the luma table is transposed, pictures are padded with black
to whole blocks of 16, and pixels are not rounded to 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

DCT_BLOCK, MACROBLOCK = 8, 16
LEAST_FACTOR = 1e-6
"""Of the tables; quality 100 would make it 0."""
LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_CORNER = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
Round = Callable[[Tensor], Tensor]


def soft_round(x: Tensor) -> Tensor:
    """Differentiable rounding."""
    whole = x.round()
    return whole + (x - whole) ** 3


def compress_jpeg(pictures: Tensor, quality: Tensor, rounding: Round = torch.round) -> Tensor:
    """Compress pictures in 0..1, each with its own quality in 1..100, which may be fractional."""
    height, width = pictures.shape[-2:]
    whole = pad(pictures, (0, -width % MACROBLOCK, 0, -height % MACROBLOCK))
    factor = _table_factor(quality.to(pictures)).view(-1, 1, 1, 1, 1, 1)
    ycc = _convert(whole * 255, TO_YCBCR)
    luma = _quantise(ycc[:, :1], _tables(pictures)[0] * factor, rounding)
    chroma = _quantise(avg_pool2d(ycc[:, 1:] + 128, 2), _tables(pictures)[1] * factor, rounding)
    joined = torch.cat([luma, interpolate(chroma, scale_factor=2.0, mode="nearest") - 128], dim=1)
    return _convert(joined, TO_RGB).clamp(0, 255)[..., :height, :width] / 255


def _table_factor(quality: Tensor) -> Tensor:
    return torch.where(quality < 50, 50 / quality, 2 - quality / 50).clamp(min=LEAST_FACTOR)


def _tables(like: Tensor) -> tuple[Tensor, Tensor]:
    luma = like.new_tensor(LUMA_TABLE).T
    chroma = like.new_full((DCT_BLOCK, DCT_BLOCK), 99)
    chroma[:4, :4] = like.new_tensor(CHROMA_CORNER)
    return luma, chroma


def _convert(pictures: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", pictures.new_tensor(matrix), pictures)


def _quantise(planes: Tensor, table: Tensor, rounding: Round) -> Tensor:
    """Quantize the DCT coefficients of each 8x8 block."""
    count, channels, height, width = planes.shape
    blocks = (
        planes.view(count, channels, height // DCT_BLOCK, DCT_BLOCK, width // DCT_BLOCK, DCT_BLOCK).transpose(3, 4)
        - 128
    )
    basis = _cosines(planes)
    found = rounding(basis @ blocks @ basis.T / table) * table
    return (basis.T @ found @ basis + 128).transpose(3, 4).reshape(planes.shape)


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal DCT-II matrix, one row per frequency."""
    place = torch.arange(DCT_BLOCK, dtype=torch.float64)
    rows = torch.cos((2 * place + 1) * place[:, None] * math.pi / (2 * DCT_BLOCK)) / 2
    rows[0] /= math.sqrt(2)
    return rows.to(like)
