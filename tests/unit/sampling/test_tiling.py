"""Tiles cover everything, weigh what they should, and change nothing that is decided point by point."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srcli.errors import InputError
from srcli.sampling.layout import Limits, find_cheapest_tiles, lay_tiles
from srcli.sampling.sampler import Tiled
from srcli.sampling.tiling import find_origins, gaussian_weight, lay_grid, spread_origins
from srcli.settings import Sampling, Tiling

SIDE = st.integers(1, 90)


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    size = draw(st.integers(1, 48))
    return Tiling(size=size, overlap=draw(st.integers(0, size - 1)))


class Pointwise:
    """A denoiser that looks at nothing but the element itself, and at the hint above it."""

    stride = 2

    def __call__(self, x, t, hint, where=None):
        return 3 * x + t + hint[..., ::2, ::2]


@given(height=SIDE, width=SIDE, tiling=tilings(), batch=st.integers(1, 7))
def test_tiling_a_pointwise_denoiser_changes_nothing(height, width, tiling, batch):
    x, hint = torch.randn(1, 3, height, width), torch.randn(1, 3, 2 * height, 2 * width)
    whole = Pointwise()(x, torch.tensor(7.0), hint)
    tiled = Tiled(Pointwise(), lay_grid(height, width, tiling), batch)(x, torch.tensor(7.0), hint)
    torch.testing.assert_close(tiled, whole, atol=2e-5, rtol=2e-5)


@given(height=SIDE, width=SIDE, tiling=tilings())
def test_every_element_is_covered_and_no_tile_leaves_the_canvas(height, width, tiling):
    seen = torch.zeros(height, width)
    for tile in lay_grid(height, width, tiling):
        assert tile.top >= 0
        assert tile.left >= 0
        crop = tile.crop(seen)
        assert crop.shape == (tile.height, tile.width)
        crop += 1
    assert seen.min() >= 1


@given(height=SIDE, width=SIDE, tiling=tilings())
def test_shares_of_the_tiles_sum_to_one(height, width, tiling):
    tiles = lay_grid(height, width, tiling)
    share = torch.zeros(height, width)
    tiled = Tiled(Pointwise(), tiles)
    weight = gaussian_weight(tiles[0].height, tiles[0].width).float()
    for tile in tiles:
        tile.crop(share).add_(weight / tile.crop(tiled._cover))
    torch.testing.assert_close(share, torch.ones_like(share), atol=1e-5, rtol=0)


@given(length=st.integers(1, 500), tile=st.integers(1, 200), data=st.data())
def test_neighbours_overlap_at_least_as_asked(length, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    starts = find_origins(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - tile)
    assert all(b - a <= tile - overlap for a, b in zip(starts, starts[1:], strict=False))


def test_the_weights_keep_the_official_asymmetry():
    weight = gaussian_weight(6, 6)
    torch.testing.assert_close(weight, weight.flip(1))
    assert not torch.allclose(weight, weight.flip(0))
    assert weight.argmax() // 6 == 3


@pytest.mark.parametrize(("size", "overlap"), [(8, 8), (8, 9), (0, 0), (4, -1)])
def test_a_tiling_that_makes_no_sense_is_refused(size, overlap):
    with pytest.raises(InputError, match="`tile`|`overlap`"):
        Tiling(size=size, overlap=overlap)


@given(height=st.integers(1, 700), width=st.integers(1, 700))
def test_planned_tiles_are_equal_and_cover_the_canvas_with_the_overlap(height, width):
    limits = Limits()
    tiles = find_cheapest_tiles(height, width, pasd_cost, limits)
    assert len({(t.height, t.width) for t in tiles}) == 1
    for side, starts in ((height, {t.top for t in tiles}), (width, {t.left for t in tiles})):
        size = tiles[0].height if side == height else tiles[0].width
        ordered = sorted(starts)
        assert ordered[0] == 0
        if len(ordered) > 1 and height != width:
            assert ordered[-1] == side - size
            assert all(b - a <= size - limits.overlap for a, b in zip(ordered, ordered[1:], strict=False))


def pasd_cost(n: int) -> float:
    return 267e6 * n + 18930 * n * n


def total(tiles) -> float:
    return sum(pasd_cost(t.height * t.width) for t in tiles)


@pytest.mark.parametrize(("latents", "saving"), [(256, 2.5), (512, 5.0)])
def test_the_plan_beats_the_official_default_layout(latents, saving):
    official = lay_grid(latents, latents, Tiling(size=320, overlap=8))
    assert total(official) / total(find_cheapest_tiles(latents, latents, pasd_cost, Limits())) >= saving


def test_a_small_canvas_is_taken_whole_and_a_wish_is_granted():
    assert lay_tiles(64, 64, Sampling(), pasd_cost, Limits()) is None
    tiles = lay_tiles(64, 64, Sampling(tile=32, overlap=8), pasd_cost, Limits())
    assert tiles is not None
    assert {t.top for t in tiles} == {0, 24, 32}


def test_spread_is_even():
    assert spread_origins(100, 40, 3) == [0, 30, 60]


def test_a_step_can_be_ended_between_tiles():
    seen = []

    def end_at_the_second(done, total):
        seen.append((done, total))
        if done >= 4:
            raise InterruptedError

    x, hint = torch.zeros(1, 3, 40, 40), torch.zeros(1, 3, 80, 80)
    tiles = lay_grid(40, 40, Tiling(size=12, overlap=4))
    tiled = Tiled(Pointwise(), tiles, 2, on_tiles=end_at_the_second)
    with pytest.raises(InterruptedError):
        tiled(x, torch.tensor(0.0), hint)
    assert seen == [(2, len(tiles)), (4, len(tiles))]
