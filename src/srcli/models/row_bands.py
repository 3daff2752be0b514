"""Layers over feature maps in bands of rows, so that only a few maps are ever whole in memory.

3x3 convolutions, group norms with the statistics of the whole map, and resampling by 2. Bands are channels-last in
memory, so that convolutions need no copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import ReferenceType, ref

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import conv2d, silu

from srcli.imaging.spill import allocate_in_file, allocate_reclaimable, evict_pages, reclaim_start

MapBands = Iterator[Tensor]  # bands of one map, from its first row to its last
MAX_SUMMED = 1 << 12  # values in one fp32 sum; longer sums lose too many digits
FAST_STATISTICS = ("cpu", "cuda")  # devices with torch.batch_norm_update_stats


@dataclass(frozen=True, slots=True)
class Bands:
    """The size of a band, and where whole maps are kept."""

    area: int = 1 << 13  # rows x columns of a band; small enough for the allocator to reuse its memory
    store: torch.device | None = None  # device of whole maps; None: the network's
    lean: bool = True  # compute a large map twice instead of keeping two of them
    maps: list[ReferenceType[NDArray[Any]]] = field(default_factory=list, repr=False, compare=False)

    def cut(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        """First and last row of each band."""
        rows = max(1, self.area // width)
        for top in range(0, height, rows):
            yield top, min(top + rows, height)

    def new(self, like: Tensor, channels: int, height: int, width: int) -> Tensor:
        """An uninitialized whole map."""
        device = self.store or like.device
        if device.type != "cpu":
            shape = like.shape[0], channels, height, width
            return torch.empty(shape, dtype=like.dtype, device=device, memory_format=torch.channels_last)
        array = self.array((like.shape[0], height, width, channels), str(like.dtype).removeprefix("torch."))
        self.maps[:] = [kept for kept in self.maps if kept() is not None] + [ref(array)]
        return torch.from_numpy(array).permute(0, 3, 1, 2)

    def array(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        return allocate_reclaimable(shape, dtype)

    def rows(self, x: Tensor, device: torch.device, last: bool = False) -> MapBands:
        """A whole map's bands, on the device. `last`: nobody reads the map again."""
        for top, bottom in self.cut(*x.shape[2:]):
            yield x[:, :, top:bottom].to(device)
            self.release_rows(x, bottom, last)

    def release_rows(self, x: Tensor, rows: int, last: bool) -> None:
        """If this is the last read of `x`, give back the memory of its first rows."""
        for array in (kept() for kept in self.maps if last and len(x) == 1):
            if array is not None and array.ctypes.data == x.data_ptr():
                reclaim_start(array, rows * array.strides[1])


@dataclass(frozen=True, slots=True)
class Spilling(Bands):
    """Whole maps are kept on the disk; only the current band is in memory."""

    def array(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        return allocate_in_file(shape, dtype)

    def cut(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        for rows in Bands.cut(self, height, width):
            yield rows
            for array in (kept() for kept in self.maps):
                if array is not None:
                    evict_pages(array)


class Norm:
    """Group norm followed by SiLU, as one factor and one summand per channel."""

    def __init__(self, factor: Tensor, summand: Tensor) -> None:
        self._factor, self._summand = factor, summand

    def write(self, out: Tensor, rows: Tensor) -> None:
        """Write the normalized rows to `out`."""
        if out.dtype is torch.float32:
            silu(torch.addcmul(self._summand, rows, self._factor, out=out), inplace=True)
        else:
            out.copy_(silu(torch.addcmul(self._summand, rows.float(), self._factor)))


class ChannelMoments:
    """Means and variances of a map's channels, collected band by band."""

    def __init__(self, rows: Iterable[Tensor] = ()) -> None:
        self._sizes: list[int] = []
        self._moments: list[Tensor] = []
        for part in rows:
            self.add(part)

    def add(self, rows: Tensor) -> None:
        for part in torch.split(rows, max(1, MAX_SUMMED // rows.shape[3]), 2):
            self._sizes.append(part.shape[2] * part.shape[3])
            self._moments.append(torch.stack([_mean_and_variance(one.float()) for one in part]))

    def measure(self, rows: Iterable[Tensor]) -> MapBands:
        """Pass the bands through, collecting their moments."""
        for part in rows:
            self.add(part)
            yield part

    def norm(self, layer: nn.GroupNorm) -> Norm:
        """The layer, followed by SiLU, with the statistics of all measured bands."""
        moments = torch.stack(self._moments)
        means, variances = moments.cpu().double().reshape(*moments.shape[:3], layer.num_groups, -1).unbind(2)
        share = torch.tensor(self._sizes, dtype=torch.float64)[:, None, None] / sum(self._sizes)
        mean = (share * means.mean(3)).sum(0)
        variance = (share * (variances + (means - mean[..., None]).square()).mean(3)).sum(0)
        width = means.shape[3]  # channels per group
        factor = (variance + layer.eps).rsqrt().repeat_interleave(width, 1) * layer.weight.cpu().double()
        summand = layer.bias.cpu().double() - mean.repeat_interleave(width, 1) * factor
        return Norm(*(v[:, :, None, None].float().to(moments.device) for v in (factor, summand)))


def _mean_and_variance(part: Tensor) -> Tensor:
    """Mean and variance of each channel."""
    if part.device.type in FAST_STATISTICS:
        return torch.stack(torch.batch_norm_update_stats(part[None], None, None, 0.0))
    variance, mean = torch.var_mean(part, (1, 2), correction=0)
    return torch.stack([mean, variance])


def convolve_rows(conv: nn.Conv2d, rows: Iterable[Tensor], height: int, norm: Norm | None = None) -> MapBands:
    """A 3x3 convolution with zero padding. A row is computed when the row below it has arrived."""
    above, received = None, 0
    for part in rows:
        received += part.shape[2]
        window = _build_window(above, part, received == height, norm)
        above = window[:, :, -2:].clone()
        if window.shape[2] > 2:
            yield conv2d(window, conv.weight, conv.bias, padding=(0, 1))


def _build_window(above: Tensor | None, part: Tensor, last: bool, norm: Norm | None) -> Tensor:
    """The last two earlier rows and the new ones, normalized, with zeros beyond the map's edges."""
    count, channels, height, width = part.shape
    held = 1 if above is None else above.shape[2]
    window = part.new_empty(count, height + held + last, width, channels).permute(0, 3, 1, 2)
    window[:, :, :held] = 0 if above is None else above
    middle = window[:, :, held : held + height]
    if norm:
        norm.write(middle, part)
    else:
        middle.copy_(part)
    if last:
        window[:, :, -1] = 0
    return window


def upsample_rows(conv: nn.Conv2d, x: Tensor, bands: Bands, device: torch.device, last: bool = False) -> MapBands:
    """Nearest-neighbour upsampling by 2, then a 3x3 convolution.

    Two of three neighbouring rows (or columns) are equal, so their taps are added: 4 of 9 products remain.
    """
    weight = conv.weight.float()
    taps = {(a, b): _merge_taps(_merge_taps(weight, 2, a), 3, b).to(conv.weight) for a in (0, 1) for b in (0, 1)}
    height, width = x.shape[2:]
    for top, bottom in bands.cut(height, 2 * width):
        window = _read_rows(x, top - 1, bottom + 1, device)
        high = bottom - top
        out = window.new_empty(len(x), 2 * high, 2 * width, conv.out_channels).permute(0, 3, 1, 2)
        for (a, b), weight in taps.items():
            part = conv2d(window[:, :, a : a + high + 1], weight, conv.bias, padding=(0, 1))
            out[:, :, a::2, b::2] = part[..., b : b + width]
        yield out
        bands.release_rows(x, bottom - 1, last)


def _merge_taps(weight: Tensor, dim: int, phase: int) -> Tensor:
    first, middle, last = weight.unbind(dim)
    return torch.stack([first, middle + last] if phase == 0 else [first + middle, last], dim)


def downsample_rows(conv: nn.Conv2d, x: Tensor, bands: Bands, device: torch.device) -> MapBands:
    """Downsampling by 2: a convolution of stride 2, with padding on the right and bottom only."""
    height, width = x.shape[2] // 2, x.shape[3] // 2
    for top, bottom in bands.cut(height, 2 * width):
        window = _read_rows(x, 2 * top, 2 * bottom + 1, device, right=1)
        yield conv2d(window, conv.weight, conv.bias, stride=2)


def _read_rows(x: Tensor, top: int, bottom: int, device: torch.device, right: int = 0) -> Tensor:
    """Rows of a map, from `top` to `bottom`, with zeros beyond its edges."""
    count, channels, height, width = x.shape
    shape = count, bottom - top, width + right, channels
    window = torch.zeros(shape, dtype=x.dtype, device=device).permute(0, 3, 1, 2)
    first, last = max(top, 0), min(bottom, height)
    window[:, :, first - top : last - top, :width] = x[:, :, first:last]
    return window


def number_bands(rows: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Bands, each with the number of its first row."""
    top = 0
    for part in rows:
        yield top, part
        top += part.shape[2]
