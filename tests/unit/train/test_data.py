"""Pairs, degradations and measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from srcli.train import data
from srcli.train.degradations import degrade, jpeg, resize
from srcli.train.metrics import Scores, compare
from srcli.train.old import age, damage, printed
from srcli.train.sheet import contact, middle
from srcli.train.synthetic import drawn


def sharp(side: int = 96, seed: int = 0):
    return drawn(side, np.random.default_rng(seed))


@pytest.mark.parametrize(("spoil", "scale"), [(degrade, 4), (age, 2)])
def test_spoiling_keeps_the_picture_in_its_place(spoil, scale):
    """The spoiled picture, enlarged, is nearer to its own truth than to the truth moved by 4 pixels."""
    truth, near, far = sharp(128), [], []
    for seed in range(20):
        small = spoil(truth, scale, np.random.default_rng(seed))
        assert small.shape == (128 // scale, 128 // scale, 3)
        large = resize(small, 128, 128).astype(float)
        near.append(np.abs(large - truth)[8:-8, 8:-8].mean())
        far.append(min(np.abs(large - np.roll(truth, s, axis=a))[8:-8, 8:-8].mean() for s in (-4, 4) for a in (0, 1)))
    assert np.mean(near) < 0.9 * np.mean(far)


@pytest.mark.parametrize(("spoil", "scale"), [(degrade, 4), (age, 2)])
def test_a_seed_fixes_the_damage(spoil, scale):
    one, same, other = (spoil(sharp(), scale, np.random.default_rng(s)) for s in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_print_is_one_colour_scale():
    """Whatever the paper, lighter is lighter in every channel."""
    made = printed(sharp(), np.random.default_rng(1)).reshape(-1, 3).astype(int)
    rising = np.diff(made[np.argsort(made.sum(1), kind="stable")], axis=0)
    assert rising.min() >= -1


def test_damage_touches_little():
    truth = np.full((128, 128, 3), 128, np.uint8)
    changed = [np.any(damage(truth, np.random.default_rng(s)) != truth, axis=2).mean() for s in range(30)]
    assert 0 < np.mean(changed) < 0.35


def test_batches_depend_on_step_and_seed_alone():
    pairs = data.Pairs([sharp(128)], degrade, 8, 4, 4, 3, 1)
    again = data.Pairs([sharp(128)], degrade, 8, 4, 4, 3, 1)
    other = data.Pairs([sharp(128)], degrade, 8, 4, 4, 3, 2)
    assert all(map(torch.equal, pairs[5], again[5]))
    assert not torch.equal(pairs[5][1], pairs[6][1])
    assert not torch.equal(pairs[5][1], other[5][1])
    small, large = pairs[0]
    assert small.shape == (3, 3, 8, 8)
    assert large.shape == (3, 3, 32, 32)


def test_unreadable_pictures_are_left_out(tmp_path):
    Image.fromarray(sharp()).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8nothing")
    assert len(data.photographs(data.find(tmp_path), 64)) == 1


def test_scores_of_the_truth_itself():
    truth = sharp(128)
    scores = compare(truth, truth)
    assert scores.psnr > 100
    assert scores.ssim == pytest.approx(1)
    assert scores.gmsd == pytest.approx(0, abs=1e-9)
    assert (scores.gradient, scores.near, scores.far) == (1, 1, 1)


def test_scores_fall_with_damage():
    truth = sharp(128)
    soft = resize(resize(truth, 32, 32), 128, 128)
    blurred, stored = compare(soft, truth), compare(jpeg(truth, 90), truth)
    assert blurred.psnr < stored.psnr
    assert blurred.ssim < stored.ssim
    assert blurred.gmsd > stored.gmsd
    assert blurred.far < 0.1 < stored.far
    assert Scores.mean([blurred, stored]).psnr == pytest.approx((blurred.psnr + stored.psnr) / 2)


def test_the_sheet_shows_every_column_and_row_at_full_size():
    a, b = sharp(40), sharp(40, 1)
    sheet = np.asarray(contact([{"one": a, "two": b}, {"one": b, "two": a}]))
    assert np.array_equal(sheet[18:58, :40], a)
    assert np.array_equal(sheet[62:102, 44:84], a)


@pytest.mark.parametrize(("shape", "side"), [((100, 70), 64), ((30, 90), 16), ((64, 64), 64)])
def test_the_middle_is_square_and_a_multiple(shape, side):
    assert middle(np.zeros((*shape, 3), np.uint8), 64, 16).shape == (side, side, 3)


def test_batches_are_the_same_whoever_makes_them():
    pairs = data.Pairs([sharp(128)], degrade, 8, 4, 4, 2, 1)
    for jobs in (0, 1):
        made = data.batches(pairs, 3, jobs)
        for step in (3, 4, 5):
            assert all(map(torch.equal, next(made), pairs[step]))
