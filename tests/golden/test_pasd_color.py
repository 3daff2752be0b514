"""Colour fixes give the official program's numbers; before they are made 8-bit, which there truncates."""

import pytest
import torch
from tests.golden.cases import Case, each_group, off_by, picture
from torch import Tensor

from srcli.sampling import colorfix


def truncated(rgb: Tensor) -> Tensor:
    return (rgb.clamp(0, 1)[0] * 255).byte().permute(1, 2, 0)


@pytest.mark.parametrize("kind", ["wavelet", "adain"])
@each_group("pasd", "h_color_fix*", lambda case: case.groups("target_u8"))
def test_floats_and_levels(kind, case: Case, part: str) -> None:
    given = case.under(part)
    result, source = picture(given["target_u8"]), picture(given["source_u8"])
    got = getattr(colorfix, f"fix_colors_by_{kind}")(result, source)
    assert off_by(got, given[f"{kind}_float"]) <= 1e-5
    assert (truncated(got) != given[f"{kind}_u8"]).float().mean() <= 1e-3
    rows = colorfix.fix_colors(kind, result, lambda rows: source[:, :, rows])
    height = result.shape[2]
    applied = [rows(slice(top, min(top + 7, height))) for top in range(0, height, 7)]
    assert torch.equal(torch.cat(applied, 2), got.clamp(0, 1))


@each_group("pasd", "h_color_fix*", lambda case: case.groups("target_low"))
def test_coarsest_band(case: Case, part: str) -> None:
    given = case.under(part)
    assert off_by(colorfix.blur_coarsest(picture(given["target_u8"])), given["target_low"]) <= 1e-5
