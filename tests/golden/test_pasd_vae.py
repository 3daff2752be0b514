"""The VAE in bands gives what the stock one gives in one piece.

The official tiled VAE does not (its vectors lie beside): attention in tiles, statistics without the differences
between them. Its geometry is of no use to ours, so only the untiled numbers are held.
"""

import pytest
import torch
from tests.golden.cases import Case, each, off_by, picture
from tests.golden.pasd_models import vae

from srcli.models.banded_vae import decode_in_bands, encode_in_bands
from srcli.models.row_bands import Bands

AREAS = [1, 1000, 5000, 1 << 16]


@pytest.mark.parametrize("area", AREAS)
@each("pasd", "j_tiled_vae*")
def test_bands_equal_the_whole(case: Case, area: int) -> None:
    net, given = vae(case.root), case.tensors
    with torch.inference_mode():
        moments = encode_in_bands(net, picture(given["encode.image_u8"]) * 2 - 1, Bands(area))
        rgb = decode_in_bands(net, given["decode.z"], Bands(area))
    assert off_by(moments, given["encode.untiled_moments"]) <= 1e-5
    assert off_by(rgb, given["decode.untiled"]) <= 1e-5


@each("pasd", "j_tiled_vae*")
def test_what_the_official_tiles_lose_is_not_lost_here(case: Case) -> None:
    given = case.tensors
    with torch.inference_mode():
        rgb = decode_in_bands(vae(case.root), given["decode.z"], Bands(1000))
    assert off_by(rgb, given["decode.untiled"]) < 1e-3 * off_by(given["decode.official"], given["decode.untiled"])


@each("pasd", "j_split_geometry*")
def test_every_boundary_of_the_official_split_is_inside_ours(case: Case) -> None:
    """Bands are full rows, in order, without gap or overlap, at each size that the official program splits."""
    for name in case.notes:
        height, width = (int(side) for side in name.split()[1].split("x"))
        edges = list(Bands().cut(height, width))
        assert [top for top, _ in edges][1:] == [bottom for _, bottom in edges][:-1]
        assert (edges[0][0], edges[-1][1]) == (0, height)
        assert max(bottom - top for top, bottom in edges) * width <= Bands().area
