"""One picture through the whole line, with an engine that changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.fakes import CPU, PassThrough, pipeline

from srcli.engines.pasd.spec import SPEC as PASD
from srcli.engines.runtime.oom_fallback import MemorySavings
from srcli.errors import InputError, MachineError, PictureError
from srcli.imaging.picture import Picture
from srcli.metrics.matlab import matlab_bicubic
from srcli.pipeline import EnginePipeline
from srcli.settings import Sampling, TargetSize
from srcli.tasks import COLORIZE, RESTORE, UPSCALE, Job


def picture(height=20, width=30, dtype=np.uint8, **more) -> Picture:
    rng = np.random.default_rng(3)
    return Picture(pixels=rng.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True), **more)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_pass_through_at_scale_one_changes_no_pixel(dtype):
    source = picture(dtype=dtype)
    result = pipeline().run(source, Job(task=RESTORE))
    assert result.pixels.dtype == dtype
    assert np.array_equal(result.pixels, source.pixels)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (TargetSize(scale=2.5), (75, 50)),
        (TargetSize(width=61), (61, 41)),
        (TargetSize(height=7), (10, 7)),
        (TargetSize(long_side=3), (3, 2)),
        (TargetSize(), (120, 80)),
    ],
)
def test_the_result_has_exactly_the_size_asked_for(size, expected):
    result = pipeline(factor=4).run(picture(), Job(task=UPSCALE, size=size))
    assert (result.width, result.height) == expected


def test_a_strip_one_pixel_wide_comes_out_one_strip():
    result = pipeline().run(picture(1, 40), Job(task=UPSCALE, size=TargetSize(scale=3)))
    assert (result.width, result.height) == (120, 3)


def test_blocks_join_to_what_one_piece_gives():
    source = picture(70, 90)
    job = Job(task=UPSCALE, size=TargetSize(scale=2))
    whole = pipeline(factor=2).run(source, job)
    cut = pipeline(factor=2, block=32).run(source, job)
    assert np.array_equal(cut.pixels, whole.pixels)


def test_a_result_that_a_limit_has_no_room_for_lies_in_a_file():
    job = Job(task=RESTORE)
    roomy, scant = (
        EnginePipeline(PassThrough(), replace(CPU, memory=size)).run(picture(), job).pixels for size in (1 << 20, 99)
    )
    assert roomy.flags.owndata
    assert not scant.flags.owndata
    assert np.array_equal(scant, roomy)


def test_alpha_and_what_must_survive_stay_with_the_picture():
    alpha = np.full((20, 30), 77, np.uint8)
    result = pipeline().run(picture(alpha=alpha, grey=True, notes=("a note",)), Job(task=UPSCALE))
    assert result.alpha is not None
    assert result.alpha.shape == (80, 120)
    assert np.all(result.alpha == 77)
    assert result.grey
    assert result.notes == ("a note",)


def test_colorize_shows_the_engine_luminance_and_keeps_it():
    tint = torch.tensor([0.2, 0.0, -0.1]).view(1, 3, 1, 1)
    seen = []

    def colour(rgb):
        seen.append(rgb)
        return rgb * 0.5 + 0.3 + tint

    source = picture(grey=True)
    engine = pipeline(spec=PASD, change=colour)
    result = engine.run(source, Job(task=COLORIZE))
    assert torch.equal(seen[0][:, 0], seen[0][:, 1])
    assert not result.grey
    weights = np.array([0.299, 0.587, 0.114])
    assert np.abs(result.pixels @ weights - source.pixels @ weights).max() <= 1.0


def test_progress_of_blocks_is_one_picture_s_progress():
    seen = []
    pipeline(block=32).run(picture(64, 32), Job(task=RESTORE), lambda *step: seen.append(step))
    steps = [(done, total) for stage, done, total in seen if stage == "sampling"]
    assert steps == [(0, 4), (1, 4), (2, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("broken", "kind"),
    [(lambda rgb: rgb * float("nan"), "not-finite"), (torch.zeros_like, "blank")],
)
def test_a_broken_result_is_never_a_black_picture(broken, kind):
    with pytest.raises(PictureError, match="float32") as caught:
        pipeline(change=broken).run(picture(), Job(task=RESTORE))
    assert caught.value.kind == kind


def test_a_setting_the_engine_does_not_know_is_refused():
    with pytest.raises(InputError, match="`guidance` means nothing to the builtin engine"):
        pipeline().run(picture(), Job(task=UPSCALE, sampling=Sampling(guidance=3)))


def test_made_tells_how_and_nothing_of_the_machine():
    made = pipeline().provenance(Job(task=UPSCALE, seed=11), picture())
    assert made["seed"] == 11
    assert made["engine"] == "builtin"
    assert made["settings"] == {"fidelity": 0.5, "damage": "auto"}
    assert "/" not in str(made["models"])


LESS = [
    lambda savings: savings.share < 1,
    lambda savings: savings.share == 0,
    lambda savings: savings.split_guidance,
    lambda savings: savings.band < 1,
    lambda savings: savings.tile < 1,
    lambda savings: savings.offload,
]


@pytest.mark.parametrize("fits", LESS)
def test_memory_that_runs_out_is_asked_for_less_until_it_does(fits, said):
    line = EnginePipeline(PassThrough(fits=fits), CPU)
    source = picture(40, 40)
    assert np.array_equal(line.run(source, Job(task=RESTORE)).pixels, source.pixels)
    steps = len(said)
    assert steps == LESS.index(fits) + 1
    line.run(source, Job(task=RESTORE))
    assert len(said) == steps, "what did not fit once is not tried again"


def test_memory_that_never_suffices_is_the_machine_s_failure():
    with pytest.raises(MachineError, match="does not fit into memory") as caught:
        pipeline(fits=lambda savings: False).run(picture(), Job(task=RESTORE))
    assert caught.value.exit_code == 5


def test_savings_make_tiles_fewer_at_once_and_smaller():
    line = pipeline()
    request = line._make_request(Job(task=RESTORE))
    tiles, batch = line._layout(40, 40, request)
    assert batch == 8
    _, one = line._layout(40, 40, replace(request, savings=MemorySavings(share=0)))
    assert one == 1
    smaller, _ = line._layout(40, 40, replace(request, savings=MemorySavings(tile=0.75)))
    assert smaller[0].height < tiles[0].height


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_consistent_result_reduces_to_its_input_whatever_the_engine_made(dtype):
    small = picture(24, 30, dtype)
    soft = small.pixels // 4 + np.iinfo(dtype).max // 3  # away from the ends of the range
    source = replace(small, pixels=matlab_bicubic(matlab_bicubic(soft, (90, 72)), (30, 24)))
    wild = pipeline(factor=4, change=lambda rgb: rgb**2 * 0.7)
    result = wild.run(source, Job(task=UPSCALE, consistent=True))
    reduced = matlab_bicubic(result.pixels, (30, 24)).astype(int)
    assert np.abs(reduced - source.pixels).max() <= 1
    assert not np.array_equal(result.pixels, pipeline(factor=4).run(source, Job(task=UPSCALE)).pixels)
    assert wild.provenance(Job(task=UPSCALE, consistent=True), source)["consistent"] is True


def test_what_cannot_be_consistent_is_refused_or_told(caplog):
    with pytest.raises(InputError, match="`consistent` goes with upscale: restore-old-photo"):
        Job(task=RESTORE, consistent=True)
    with pytest.raises(PictureError, match="larger than the input"):
        pipeline().run(picture(), Job(task=UPSCALE, size=TargetSize(scale=0.5), consistent=True))
    pipeline(factor=4).run(picture(), Job(task=UPSCALE))
    assert caplog.messages == []
    squares = np.asarray(np.indices((20, 30)).sum(0)[..., None].repeat(3, 2) % 2 * 255, np.uint8)
    pipeline(factor=4).run(replace(picture(), name="chess", pixels=squares), Job(task=UPSCALE, consistent=True))
    (message,) = caplog.messages
    assert message.startswith("chess: where it is black or white, the reduced result is off by ")
