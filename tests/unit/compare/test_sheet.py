"""The contact sheet: where pictures differ most, and nowhere twice."""

from __future__ import annotations

import numpy as np
from skimage import data

from srcli.compare.layers import Layer
from srcli.compare.sheet import LABEL_GAP, LABEL_HEIGHT, draw_sheet, find_crops


def layers(*spots):
    """A photograph, and the same with squares that are lighter by so much."""
    truth = data.astronaut()[:400, :500]
    spoiled = truth.astype(int)
    for top, left, by in spots:
        spoiled[top : top + 40, left : left + 40] += by
    return [Layer("one", truth), Layer("other", spoiled.clip(0, 255).astype(np.uint8)), Layer("small", truth[::4, ::4])]


def test_the_largest_difference_comes_first_and_crops_do_not_overlap():
    found = find_crops("m", layers((300, 400, 60), (40, 60, -90)), 96, 3)
    truth = data.astronaut()[:400, :500]
    places = []
    for crop in found:
        hits = [
            (top, left)
            for top in range(0, 400 - 95)
            for left in range(0, 500 - 95)
            if truth[top, left, 0] == crop.parts[0][0, 0, 0]
            and np.array_equal(truth[top : top + 96, left : left + 96], crop.parts[0])
        ]
        places += hits[:1]
    assert 40 - 95 < places[0][0] <= 60
    assert 60 - 95 < places[0][1] <= 80
    assert abs(places[1][0] - 300) < 96
    assert abs(places[1][1] - 400) < 96
    assert found[0].difference > found[1].difference > found[2].difference
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs(places[a][0] - places[b][0]) >= 96 or abs(places[a][1] - places[b][1]) >= 96


def test_all_pictures_are_cut_at_one_place_at_full_size():
    (crop,) = find_crops("m", layers((200, 200, 50)), 64, 1)
    one, other, small = crop.parts
    assert one.shape == other.shape == small.shape == (64, 64, 3)
    assert not np.array_equal(one, other)
    sheet = np.asarray(draw_sheet(["one", "other", "small"], [crop]))
    assert sheet.shape[:2] == (LABEL_HEIGHT + 64 + LABEL_HEIGHT + LABEL_GAP, 3 * (64 + LABEL_GAP) - LABEL_GAP)
    for column, part in enumerate(crop.parts):
        left = column * (64 + LABEL_GAP)
        assert np.array_equal(sheet[LABEL_HEIGHT : LABEL_HEIGHT + 64, left : left + 64], part)


def test_pictures_smaller_than_a_crop_are_taken_whole():
    tiny = [Layer(layer.name, np.ascontiguousarray(layer.pixels[:20, :30])) for layer in layers((0, 0, 9))[:2]]
    crops = find_crops("m", tiny, 256, 4)
    assert [crop.parts[0].shape for crop in crops] == [(20, 20, 3)]
