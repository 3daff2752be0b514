"""The degradations against the code that PASD, StableSR and Real-ESRGAN were trained with, draw by draw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.golden.cases import Case, each, off_by, picture
from tests.golden.given_draws import GivenDraws
from torch import Tensor

from srcli.degrade import chain
from srcli.degrade.cropping import crop_randomly, flip_half
from srcli.degrade.jpeg import compress_jpeg, soft_round
from srcli.degrade.kernels import KernelShape, make_kernel
from srcli.degrade.operations import (
    apply_unsharp_mask,
    filter_each,
    gaussian_noise,
    poisson_noise,
    resize_by,
    resize_to,
    unsharp_line,
)
from srcli.degrade.pool import PairPool
from srcli.degrade.presets import PASD, STABLESR
from srcli.degrade.settings import BICUBIC, NONE, RANDOM, BlurKernels, Degradation

JUMPS = 0.001  # share of values that rounding may move
STEP = 2e-3


def mostly(got: Tensor, want: Tensor, tolerance: float = 1e-5) -> None:
    """Equal but for the few values that a rounding inside Poisson noise or JPEG moved."""
    assert got.shape == want.shape
    off = (got - want).abs() > tolerance * want.abs().max()
    assert off.float().mean() <= JUMPS


@each("degradation", "d01*", ".")
def test_kernels(case: Case) -> None:
    for told in case.notes["cases"]:
        told = dict(told)
        want = case.tensors[told.pop("name")]
        got = make_kernel(KernelShape(**told))
        assert (got - want).abs().max() < (5e-7 if told["kind"] == "sinc" else 1e-12 * want.max()), told


@each("degradation", "d02*", ".")
def test_filter(case: Case) -> None:
    t = case.tensors
    assert off_by(filter_each(t["image"], t["kernel_each"]), t["out_each"]) < 1e-6
    assert off_by(filter_each(t["image"], t["kernel_shared"]), t["out_shared"]) < 1e-6


@each("degradation", "d03*", ".")
def test_resize(case: Case) -> None:
    for told in case.notes["cases"]:
        image = case.tensors["image"]
        if "scale" in told:
            got = resize_by(image, told["scale"], told["mode"])
        else:
            got = resize_to(image, tuple(told["size"]), told["mode"])
        assert off_by(got, case.tensors[told["name"]]) < 1e-5, told["name"]


def listed(case: Case, *names: str) -> GivenDraws:
    """Draws of one operation, whose files list tensors without a stage's name."""
    present = [name for name in names if name in case.tensors]
    tensors = {f"n.{name}": case.tensors[name] for name in present}
    return GivenDraws([(f"n.{name}", "tensor") for name in present], tensors)


@each("degradation", "d04*", ".")
def test_gaussian_noise(case: Case) -> None:
    draws = listed(case, "u_sigma", "u_gray", "field_gray", "field_color")
    got = gaussian_noise(case.tensors["image"], draws, "n", case.notes["sigma_range"], case.notes["gray_prob"])
    assert off_by(got, case.tensors["out"]) < 1e-6
    assert not draws.left


@each("degradation", "d05*", ".")
def test_poisson_noise(case: Case) -> None:
    draws = listed(case, "u_scale", "u_gray", "counts_gray", "counts_color")
    got = poisson_noise(case.tensors["image"], draws, "n", case.notes["scale_range"], case.notes["gray_prob"])
    for name, rate in draws.rates.items():
        assert torch.equal(rate, case.tensors[name.replace("n.counts", "rate")])
    assert off_by(got, case.tensors["out"]) < 1e-6
    assert not draws.left


@each("degradation", "d06*", ".")
def test_jpeg(case: Case) -> None:
    t = case.tensors
    for quality in case.notes["qualities"]:
        got, want = compress_jpeg(t["image"], torch.tensor([float(quality)])), t[f"q{quality:g}"]
        if quality == 100:  # the official factor of 0 gives no numbers at all; ours loses next to nothing
            assert (got - t["image"]).abs().mean() < 0.03  # halved chroma is all that is lost
            assert (got - t["q95"]).abs().mean() < 0.03
        else:
            assert ((got - want).abs() > STEP).float().mean() <= JUMPS, quality
    got = compress_jpeg(t["batch_image"], torch.tensor(case.notes["batch_qualities"]))
    assert ((got - t["batch_out"]).abs() > STEP).float().mean() <= JUMPS


@each("degradation", "d06*", ".")
def test_jpeg_has_a_gradient(case: Case) -> None:
    t = case.tensors
    quality = float(next(key for key in t if key.startswith("diff_q")).split("_")[1].removeprefix("q"))
    image = t["diff_image"].clone().requires_grad_()
    got = compress_jpeg(image, torch.tensor([quality]), soft_round)
    got.backward(t["diff_upstream"])
    mostly(got.detach(), t[f"diff_q{quality:g}_out"])
    mostly(image.grad, t["diff_grad"], 1e-3)


@each("degradation", "d07*", ".")
def test_sharpening(case: Case) -> None:
    line = unsharp_line()
    assert off_by(line[:, None] * line, case.tensors["kernel"]) < 1e-5
    assert off_by(apply_unsharp_mask(case.tensors["image"]), case.tensors["out"]) < 1e-5


def told_settings(preset: Degradation, params: dict[str, Any], kernels: dict[str, Any]) -> Degradation:
    """The settings that a file describes in official words."""
    stages = []
    for stage, end in ((preset.first, ""), (preset.second, "2")):
        stages.append(
            replace(
                stage,
                kernels=BlurKernels(
                    kinds=dict(zip(kernels[f"kernel_list{end}"], kernels[f"kernel_prob{end}"], strict=True)),
                    sinc=kernels[f"sinc_prob{end}"],
                    sigma=tuple(kernels[f"blur_sigma{end}"]),
                    beta_generalized=tuple(kernels[f"betag_range{end}"]),
                    beta_plateau=tuple(kernels[f"betap_range{end}"]),
                ),
                resize=dict(zip(("up", "down", "keep"), params[f"resize_prob{end}"], strict=True)),
                factor=tuple(params[f"resize_range{end}"]),
                gaussian=params[f"gaussian_noise_prob{end}"],
                sigma=tuple(params[f"noise_range{end}"]),
                poisson=tuple(params[f"poisson_scale_range{end}"]),
                gray=params[f"gray_noise_prob{end}"],
                jpeg=tuple(params[f"jpeg_range{end}"]),
            )
        )
    second = replace(stages[1], blur=params["second_blur_prob"])
    final = kernels["final_sinc_prob"]
    return replace(preset, first=stages[0], second=second, final_sinc=final, poisson_levels=1)


def settings_of(case: Case) -> Degradation:
    notes, params = case.notes, case.notes["params"]
    if notes["program"] == "pasd":
        settings = told_settings(PASD, params, params["kernel_info"])
        return replace(settings, back=RANDOM if notes["resize_bak"] else NONE, scale=params["scale"])
    settings = told_settings(STABLESR, params, notes["kernel_params"])
    clean, crop = params["no_degradation_prob"], params["gt_size"]
    return replace(settings, sharpen_target=notes["use_usm"], clean=clean, crop=crop, back=BICUBIC)


@pytest.mark.parametrize("preset", ["pasd", "stablesr"])
def test_presets_are_what_the_official_files_say(preset: str) -> None:
    from tests.golden.cases import cases

    for case in cases("degradation", f"d08_chain.{preset}.*", "."):
        want = settings_of(case)
        ours = {"pasd": PASD, "stablesr": STABLESR}[preset]
        assert (ours.first, ours.second, ours.final_sinc) == (want.first, want.second, want.final_sinc)


def stages(case: Case, x: Tensor, settings: Degradation, kernels: chain.Kernels, draws: GivenDraws) -> Tensor:
    """Each stage from the stored end of the one before; the end of the last."""
    size, t = (x.shape[-2], x.shape[-1]), case.tensors
    within = (size[0] / settings.scale, size[1] / settings.scale)
    x = chain.apply_stage(x, settings.first, settings, kernels.first, draws, "s1")
    if "s1.noisy" in t:
        mostly(x, t["s1.noisy"])
    x = chain.store_as_jpeg(t.get("s1.noisy", x), settings.first, draws, "s1")
    if "s1.jpeg" in t:
        mostly(x, t["s1.jpeg"], STEP)
    x = chain.apply_stage(t.get("s1.jpeg", x), settings.second, settings, kernels.second, draws, "s2", within)
    if "s2.noisy" in t:
        mostly(x, t["s2.noisy"])
    noisy = t.get("s2.noisy", x)
    x = chain.apply_last_stage(noisy, settings, kernels.final, draws, size)
    if "s3.jpeg" in t:  # the last thing, or the first one of the last stage
        last = t["s3.jpeg"].shape == x.shape and dict(case.notes["draws"])["s3.u_order"] < 0.5
        mostly(x if last else compress_jpeg(noisy, t["s3.quality"]), t["s3.jpeg"], STEP)
    return x


@each("degradation", "d08_chain.pasd.*", ".")
def test_chain_of_pasd(case: Case) -> None:
    settings = settings_of(case)
    unused = ("u_gray", "u_jitter")  # drawn there, and never looked at
    draws = GivenDraws(case.notes["draws"], case.tensors, unused)
    targets = flip_half(picture(case.tensors["input_u8"]), draws)
    kernels = chain.draw_kernels(settings, draws)
    x = stages(case, targets, settings, kernels, draws)
    pair = chain.finish_pair(targets, x, settings, draws)
    assert not draws.left
    levels = (pair.degraded * 255).round()
    off = (levels - case.tensors["lq_u8"].float()).abs()
    assert (off > 0).float().mean() <= JUMPS
    whole = GivenDraws(case.notes["draws"], case.tensors, unused)
    targets = flip_half(picture(case.tensors["input_u8"]), whole)
    again = chain.degrade_pictures(targets, settings, whole, chain.draw_kernels(settings, whole))
    assert not whole.left
    assert ((again.degraded * 255).round() != levels).float().mean() <= JUMPS


@each("degradation", "d08_chain.stablesr.*", ".")
def test_chain_of_stablesr(case: Case) -> None:
    settings, t = settings_of(case), case.tensors
    unused = () if settings.clean else ("u_clean",)
    draws = GivenDraws(case.notes["draws"], t, unused)
    targets, kernels = [], []
    for name in case.groups(".input_u8"):
        flipped = flip_half(picture(t[f"{name}.input_u8"]), draws, f"{name}.u_hflip")
        targets.append(crop_randomly(flipped, settings.crop, draws, f"{name}."))
        kernels.append(chain.draw_kernels(settings, draws, f"{name}."))
    joined = chain.join_kernels(kernels)
    for got, name in zip(joined, ("kernel1", "kernel2", "sinc_kernel"), strict=True):
        assert (got - t[name]).abs().max() < 1e-6
    target = torch.cat(targets)
    sharp = apply_unsharp_mask(target) if settings.sharpen_target else target
    if "gt_out" in t:
        mostly(sharp * 2 - 1, t["gt_out"])
    pair = chain.finish_pair(sharp, stages(case, sharp, settings, joined, draws), settings, draws)
    assert not draws.left
    assert torch.equal(pair.target, sharp)
    mostly(pair.degraded * 2 - 1, t["lq_out"] if "lq_out" in t else (sharp * 2 - 1).clamp(-1, 1))


@each("degradation", "d09*", ".")
def test_pool(case: Case) -> None:
    pool = PairPool(case.notes["queue"])
    for step in case.notes["steps"]:
        order = step["permutation"]
        ids = torch.tensor(step["into"])
        out = pool.exchange((ids, -ids), None if order is None else torch.tensor(order))
        assert out[0].tolist() == step["out"]
        assert torch.equal(out[1], -out[0])
