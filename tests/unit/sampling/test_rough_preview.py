"""Colours of latents without a decoder."""

from __future__ import annotations

import numpy as np
import torch

from srcli.sampling.rough_preview import estimate_levels


def test_latents_are_summed_by_their_weights():
    latents = torch.zeros(1, 4, 2, 3)
    latents[0, 0, 0, 0], latents[0, 3, 1, 2] = 1, 1
    levels = estimate_levels(latents)
    assert levels.shape == (2, 3, 3) and levels.dtype == np.uint8
    assert levels[0, 1].tolist() == [128, 128, 128]
    assert levels[0, 0].tolist() == [round((value / 2 + 0.5) * 255) for value in (0.298, 0.207, 0.208)]
    assert levels[1, 2].tolist() == [round((value / 2 + 0.5) * 255) for value in (-0.184, -0.271, -0.473)]


def test_pictures_are_shown_as_they_are_and_nothing_else_is():
    picture = torch.tensor([-1.0, 0.5, 3.0]).view(1, 3, 1, 1)
    assert estimate_levels(picture)[0, 0].tolist() == [0, 191, 255]
    assert estimate_levels(torch.full((1, 4, 1, 1), float("nan")))[0, 0].tolist() == [128, 128, 128]
    assert estimate_levels(torch.zeros(1, 8, 2, 2)) is None
