"""Maps of a network that pass by in bands of rows, so that none but a few are ever whole.

Three-row convolutions, group norms with the statistics of the whole map, and doubling of both sides. Bands lie in
memory with their channels innermost: convolutions take them so without another copy.
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
SUMMED = 1 << 12  # values: of more, a sum in fp32 loses too many digits
SWIFT = ("cpu", "cuda")  # devices on which torch has batch norm's own statistics


@dataclass(frozen=True, slots=True)
class Bands:
    """How large a piece of a map is worked on at once, and where whole maps are kept."""

    area: int = 1 << 13  # rows x columns; small enough for its memory to be used again and again
    store: torch.device | None = None  # None: where the network is
    lean: bool = True  # rather work a large map out once more than keep two of them
    maps: list[ReferenceType[NDArray[Any]]] = field(default_factory=list, repr=False, compare=False)

    def cut(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        """First and last row of each band."""
        rows = max(1, self.area // width)
        for top in range(0, height, rows):
            yield top, min(top + rows, height)

    def new(self, like: Tensor, channels: int, height: int, width: int) -> Tensor:
        """Room for a whole map."""
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
        """A whole map's bands, on the device."""
        for top, bottom in self.cut(*x.shape[2:]):
            yield x[:, :, top:bottom].to(device)
            self.passed(x, bottom, last)

    def passed(self, x: Tensor, rows: int, last: bool) -> None:
        """If this is the last time that `x` is read, its rows up to here need no memory any more."""
        for array in (kept() for kept in self.maps if last and len(x) == 1):
            if array is not None and array.ctypes.data == x.data_ptr():
                reclaim_start(array, rows * array.strides[1])


@dataclass(frozen=True, slots=True)
class Spilling(Bands):
    """Whole maps are kept on the disk, and only the band at work is in memory."""

    def array(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        return allocate_in_file(shape, dtype)

    def cut(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        for rows in Bands.cut(self, height, width):
            yield rows
            for array in (kept() for kept in self.maps):
                if array is not None:
                    evict_pages(array)


class Norm:
    """Group norm and SiLU as one factor and one summand for each channel."""

    def __init__(self, factor: Tensor, summand: Tensor) -> None:
        self._factor, self._summand = factor, summand

    def into(self, out: Tensor, rows: Tensor) -> None:
        if out.dtype is torch.float32:
            silu(torch.addcmul(self._summand, rows, self._factor, out=out), inplace=True)
        else:
            out.copy_(silu(torch.addcmul(self._summand, rows.float(), self._factor)))


class ChannelMoments:
    """Means and variances of a map's channels, gathered as its bands pass by."""

    def __init__(self, rows: Iterable[Tensor] = ()) -> None:
        self._sizes: list[int] = []
        self._found: list[Tensor] = []
        for part in rows:
            self.add(part)

    def add(self, rows: Tensor) -> None:
        for part in torch.split(rows, max(1, SUMMED // rows.shape[3]), 2):
            found = [_mean_and_variance(one.float()) for one in part]
            self._sizes.append(part.shape[2] * part.shape[3])
            self._found.append(torch.stack(found))

    def watching(self, rows: Iterable[Tensor]) -> MapBands:
        for part in rows:
            self.add(part)
            yield part

    def norm(self, layer: nn.GroupNorm) -> Norm:
        """This layer, followed by SiLU, with the statistics of all that passed by."""
        found = torch.stack(self._found)
        mean, variance = found.cpu().double().reshape(*found.shape[:3], layer.num_groups, -1).unbind(2)
        share = torch.tensor(self._sizes, dtype=torch.float64)[:, None, None] / sum(self._sizes)
        centre = (share * mean.mean(3)).sum(0)
        spread = (share * (variance + (mean - centre[..., None]).square()).mean(3)).sum(0)
        wide = mean.shape[3]
        slope = (spread + layer.eps).rsqrt().repeat_interleave(wide, 1) * layer.weight.cpu().double()
        offset = layer.bias.cpu().double() - centre.repeat_interleave(wide, 1) * slope
        return Norm(*(v[:, :, None, None].float().to(found.device) for v in (slope, offset)))


def _mean_and_variance(part: Tensor) -> Tensor:
    """Of each channel."""
    if part.device.type in SWIFT:
        return torch.stack(torch.batch_norm_update_stats(part[None], None, None, 0.0))
    variance, mean = torch.var_mean(part, (1, 2), correction=0)
    return torch.stack([mean, variance])


def convolve_rows(conv: nn.Conv2d, rows: Iterable[Tensor], height: int, norm: Norm | None = None) -> MapBands:
    """A 3x3 convolution with zeros around the map. A row leaves when the one below it has come."""
    above, seen = None, 0
    for part in rows:
        seen += part.shape[2]
        window = _window(above, part, seen == height, norm)
        above = window[:, :, -2:].clone()
        if window.shape[2] > 2:
            yield conv2d(window, conv.weight, conv.bias, padding=(0, 1))


def _window(above: Tensor | None, part: Tensor, last: bool, norm: Norm | None) -> Tensor:
    """The last two rows from before, those that have come, and none beyond the map's edges."""
    count, channels, height, width = part.shape
    held = 1 if above is None else above.shape[2]
    window = part.new_empty(count, height + held + last, width, channels).permute(0, 3, 1, 2)
    window[:, :, :held] = 0 if above is None else above
    middle = window[:, :, held : held + height]
    if norm:
        norm.into(middle, part)
    else:
        middle.copy_(part)
    if last:
        window[:, :, -1] = 0
    return window


def upsample_rows(conv: nn.Conv2d, x: Tensor, bands: Bands, device: torch.device, last: bool = False) -> MapBands:
    """Twice the size by repetition, then a 3x3 convolution.

    Of three rows (or columns) two are the same, so the two taps that meet them are added and four of nine remain.
    """
    taps = {(a, b): _merged(_merged(conv.weight.float(), 2, a), 3, b).to(conv.weight) for a in (0, 1) for b in (0, 1)}
    height, width = x.shape[2:]
    for top, bottom in bands.cut(height, 2 * width):
        window = _around(x, top - 1, bottom + 1, device)
        high = bottom - top
        out = window.new_empty(len(x), 2 * high, 2 * width, conv.out_channels).permute(0, 3, 1, 2)
        for (a, b), weight in taps.items():
            part = conv2d(window[:, :, a : a + high + 1], weight, conv.bias, padding=(0, 1))
            out[:, :, a::2, b::2] = part[..., b : b + width]
        yield out
        bands.passed(x, bottom - 1, last)


def _merged(weight: Tensor, dim: int, phase: int) -> Tensor:
    first, middle, last = weight.unbind(dim)
    return torch.stack([first, middle + last] if phase == 0 else [first + middle, last], dim)


def downsample_rows(conv: nn.Conv2d, x: Tensor, bands: Bands, device: torch.device) -> MapBands:
    """Half the size: a convolution of stride 2 that looks past the right and lower edges only."""
    height, width = x.shape[2] // 2, x.shape[3] // 2
    for top, bottom in bands.cut(height, 2 * width):
        window = _around(x, 2 * top, 2 * bottom + 1, device, right=1)
        yield conv2d(window, conv.weight, conv.bias, stride=2)


def _around(x: Tensor, top: int, bottom: int, device: torch.device, right: int = 0) -> Tensor:
    """Rows of a map, with zeros beyond its edges."""
    count, channels, height, width = x.shape
    shape = count, bottom - top, width + right, channels
    window = torch.zeros(shape, dtype=x.dtype, device=device).permute(0, 3, 1, 2)
    first, last = max(top, 0), min(bottom, height)
    window[:, :, first - top : last - top, :width] = x[:, :, first:last]
    return window


def number_bands(rows: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Bands, each with its first row's number."""
    top = 0
    for part in rows:
        yield top, part
        top += part.shape[2]
