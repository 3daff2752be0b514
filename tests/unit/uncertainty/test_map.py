"""The map of what is a guess: what it is made of, and that it says what is found."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from srcli.api import Pipeline
from srcli.engines.calibration import Calibration, OtherVersions, vary_seed
from srcli.errors import InputError
from srcli.imaging.bands import split_rows
from srcli.imaging.picture import Picture
from srcli.metrics.matlab import matlab_bicubic
from srcli.sampling.resume import ResumeState
from srcli.settings import MAX_SEED
from srcli.tasks import COLORIZE, UPSCALE, Job
from srcli.uncertainty import map as module
from srcli.uncertainty.map import map_uncertainty, mean_over_window, measure_added, measure_error


class Draws:
    """A pipeline whose results are noise of a given deviation."""

    def __init__(self, deviation: float, versions: OtherVersions | None = None, dtype: type = np.uint8) -> None:
        self.deviation, self.versions, self.dtype = deviation, versions, dtype

    def other_versions(self, job):
        return self.versions or vary_seed(job)

    def resume_state(self, picture, job):
        return ResumeState(None)

    def run(self, picture, job, on_progress=None, resume_state=None):
        size, top = job.target(picture.width, picture.height), np.iinfo(self.dtype).max
        noise = np.random.default_rng(job.seed).normal(0, self.deviation, (size[1], size[0], 1))
        return replace(picture, pixels=np.rint((128 + noise.repeat(3, 2)) * top / 255).clip(0, top).astype(self.dtype))


JOB = Job(task=UPSCALE, mapped=True, map_seeds=16)
GREY = Picture(pixels=np.full((30, 20, 3), 128, np.uint8))


def make_map(pipeline, job=JOB, picture=GREY):
    return map_uncertainty(pipeline, picture, job, pipeline.run(picture, job), lambda *told: None)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_draws_give_the_probability_that_two_of_them_are_far_apart(dtype):
    found = make_map(Draws(8.0, dtype=dtype)).levels / 255
    expected = math.erfc(10 / (2 * 8.0))
    assert found.shape == (120, 80)
    assert found.mean() == pytest.approx(expected, rel=0.1)
    gaps = [Draws(8.0).run(GREY, replace(JOB, seed=seed)).pixels[..., 0].astype(float) for seed in (90, 91)]
    assert (np.abs(gaps[0] - gaps[1]) > 10).mean() == pytest.approx(expected, rel=0.1)


def test_versions_that_agree_leave_nothing_open():
    assert not make_map(Draws(0.0)).levels.any()


def test_seeds_follow_the_job_s_and_each_is_used_once():
    jobs = vary_seed(replace(JOB, seed=MAX_SEED, map_seeds=3)).jobs
    assert [job.seed for job in jobs] == [0, 1]
    assert not any(job.mapped for job in jobs)


def test_a_share_of_the_range_is_counted_as_the_whole():
    """Half as far apart over half of the range says the same."""
    calibration = Calibration(-2, 1, 0)
    near, far = (
        make_map(
            Draws(
                s,
                OtherVersions(
                    jobs=(replace(JOB, seed=5, mapped=False, map_seeds=None),), share=share, calibration=calibration
                ),
            )
        )
        for s, share in ((8.0, 0.5), (16.0, 1.0))
    )
    assert near.levels.mean() == pytest.approx(far.levels.mean(), rel=0.05)
    assert near.facts["calibrated"]


def test_a_calibration_rises_with_both_of_its_numbers():
    spread, added = np.meshgrid(np.linspace(0, 50, 9, dtype=np.float32), np.linspace(0, 50, 9, dtype=np.float32))
    found = Calibration(-3.0, 1.0, 0.9).find_probability(spread, added)
    assert (np.diff(found, axis=0) > 0).all() and (np.diff(found, axis=1) > 0).all()
    assert found.min() > 0 and found.max() < 1


def test_in_bands_it_is_the_same_to_the_bit(monkeypatch):
    pipeline = Draws(9.0)
    whole = make_map(pipeline).levels
    monkeypatch.setattr(module, "split_rows", lambda height, width: split_rows(height, width, 7 * width))
    assert np.array_equal(make_map(pipeline).levels, whole)


def test_windows_reflect_at_edges_and_see_over_the_ends_of_a_band():
    plane = np.random.default_rng(0).random((40, 30)).astype(np.float32)
    whole = mean_over_window(lambda rows: plane[rows], slice(0, 40), 40, 11)
    parts = [mean_over_window(lambda rows: plane[rows], slice(top, top + 8), 40, 11) for top in range(0, 40, 8)]
    assert np.allclose(np.concatenate(parts), whole, atol=1e-6)
    assert whole[20, 15] == pytest.approx(plane[15:26, 10:21].mean(), rel=1e-5)


def test_nothing_is_added_to_the_enlarged_input_by_enlarging_it():
    source = np.random.default_rng(1).integers(0, 256, (12, 10, 3), np.uint8)
    enlarged = matlab_bicubic(source, (40, 48))
    assert measure_added(source, enlarged, slice(0, 48)).max() <= 0.5
    deep = (source.astype(np.uint16) * 257, enlarged.astype(np.uint16) * 257)
    assert measure_added(*deep, slice(8, 20)).max() <= 0.5


def test_an_error_is_a_mean_over_its_window_and_the_channels():
    truth = np.full((9, 9, 3), 50, np.uint8)
    result = truth.copy()
    result[4, 4] = (50, 50, 125)
    error = measure_error(result, truth)
    assert error[4, 4] == pytest.approx(1.0) and error[0, 0] == 0


@pytest.fixture(scope="module")
def builtin():
    return Pipeline.load("builtin", device="cpu")


def test_the_built_in_engine_guesses_at_texture_and_not_at_a_flat_ground(builtin):
    pixels = np.full((32, 48, 3), 128, np.uint8)
    pixels[:, 24:] = np.random.default_rng(0).integers(0, 256, (32, 24, 1), np.uint8)
    done = builtin.upscale(pixels, map=True, damage="none")
    assert done.map is not None and done.map.shape == (128, 192)
    assert done.map[:, 120:].mean() > 100 > 20 > done.map[:, :80].mean()
    assert done.provenance["map"]["versions"] == 2
    assert np.array_equal(done.pixels, builtin.upscale(pixels, damage="none").pixels)


def test_both_ends_of_the_range_are_read_alike(builtin):
    """The two ends are each other's other version."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    job = replace(JOB, map_seeds=None)
    asked = [replace(job, sampling=replace(job.sampling, fidelity=value)) for value in (0.0, 0.3, 1.0)]
    found = [builtin._load(job).other_versions(one) for one in asked]
    assert [(v.jobs[0].sampling.fidelity, v.share) for v in found] == [(1.0, 1.0), (1.0, 0.7), (0.0, 1.0)]
    assert builtin.upscale(pixels, map=True, fidelity=1.0).map is not None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"map_seeds": 4}, "`map_seeds` goes with `map`"),
        ({"map": True, "map_seeds": 1}, "out of range"),
        ({"map": True, "map_seeds": 3}, "means nothing to the builtin engine"),
    ],
)
def test_what_means_nothing_is_refused(builtin, more, why):
    with pytest.raises(InputError, match=why):
        builtin.upscale(np.zeros((8, 8, 3), np.uint8), **more)


def test_a_job_without_a_map_is_made_of_one_with(builtin):
    assert not vary_seed(Job(task=COLORIZE, mapped=True)).jobs[0].mapped
