"""Steps, tiles, colours, sizes and whole runs of the one-step models, number by number."""

import json
from functools import partial

import pytest
import torch
from tests.golden.cases import Case, each, each_group, off_by, picture
from tests.golden.onestep_tiny import denoiser, program, text_parts, vae
from torch import Tensor

from srcli.engines.latent.codec import Codec
from srcli.engines.latent.prompts import TextEncoder
from srcli.engines.latent.schedulers import diffuse_latents
from srcli.engines.latent.sizes import ensure_short_side
from srcli.engines.onestep.denoiser import OneStepDenoiser, Strengths
from srcli.engines.runtime.device import Device
from srcli.imaging.resize import resize_array
from srcli.sampling import colorfix
from srcli.sampling.one_step import OneStep, alpha_bar
from srcli.sampling.sampler import Tiled, run_sampler
from srcli.sampling.tiling import Tile, gaussian_weight, lay_grid
from srcli.settings import Tiling
from srcli.weights.one_step import OSEDIFF_KIND, PISA_KIND

FP32 = Device(torch.device("cpu"), torch.float32)
STEP, NETWORK, PIPELINE, COLOUR = 1e-6, 2e-5, 5e-5, 1e-6
FIXES = {"nofix": "none", "adain": "adain", "wavelet": "wavelet"}


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


@each("onestep", "o04_one_step.osediff*")
def test_the_step_of_noise(case: Case) -> None:
    given = case.tensors
    assert off_by(alpha_bar(999), given["alphas_cumprod_999"].squeeze()) <= STEP
    assert off_by(OneStep(999).clean(given["latent"], given["eps"]), given["x0"]) <= STEP


@each("onestep", "o04_one_step.pisa_sr*")
def test_the_step_of_a_residual(case: Case) -> None:
    given = case.tensors
    assert off_by(OneStep(1, residual=True).clean(given["latent"], given["pred"]), given["x0"]) <= STEP


@each("onestep", "o12_one_step.gdpo*")
def test_the_step_between_two_levels(case: Case) -> None:
    """Noise of one timestep goes in, and is taken away as that of another."""
    given, (t, added) = case.tensors, (int(case.notes[name]) for name in ("timestep", "noise_timestep"))
    assert off_by(alpha_bar(t), given["alphas_cumprod_t"].squeeze()) <= STEP
    assert off_by(alpha_bar(added), given["alphas_cumprod_noise"].squeeze()) <= STEP
    assert off_by(diffuse_latents(given["latent"], given["noise"], alpha_bar(added)), given["noised"]) <= STEP
    assert off_by(OneStep(t).clean(given["noised"], given["eps"]), given["x0"]) <= STEP


def weight_of(kind: str) -> partial:
    return partial(gaussian_weight, half_up=kind == OSEDIFF_KIND)


@each_group("onestep", "o06_tile_weights*", lambda case: sorted(case.tensors))
def test_tile_weights(case: Case, part: str) -> None:
    want = case.tensors[part]
    assert off_by(weight_of(program(case))(*want.shape), want) <= 1e-12


@each("onestep", "o06_tile_origins*")
def test_tile_origins(case: Case) -> None:
    for row in json.loads(case.file(".json").read_text()):
        laid = lay_grid(row["height"], row["width"], Tiling(size=row["tile"], overlap=row["overlap"]))
        assert [list(tile) for tile in laid] == row["tiles_top_left_height_width"]


def tiles(latent: Tensor, notes: dict) -> list[Tile] | None:
    """As the official programs lay them: only where the area is more than a tile's."""
    height, width = latent.shape[2:]
    tiling = Tiling(size=int(notes["tile"]), overlap=int(notes["overlap"]))
    return lay_grid(height, width, tiling) if height * width > tiling.size**2 else None


@each("onestep", "o07_tiled.osediff*")
def test_tiles_of_osediff(case: Case) -> None:
    given, seen = case.tensors, []
    predict, t = denoiser(case.root, OSEDIFF_KIND, given["context"]), torch.tensor(999)

    class Watched:
        stride = 1

        def __call__(self, *args: object) -> Tensor:
            seen.append(predict(*args))
            return seen[-1]

    laid = tiles(given["latent"], case.notes)
    got = Tiled(Watched(), laid, weight=weight_of(OSEDIFF_KIND))(given["latent"], t, given["latent"])
    assert len(seen) == len(laid) == sum(name.startswith("tile") for name in given)
    for index, part in enumerate(seen):
        assert off_by(part, given[f"tile{index:02d}"]) <= NETWORK
    assert off_by(got, given["pred"]) <= NETWORK
    assert off_by(OneStep(999).clean(given["latent"], got), given["x0"]) <= NETWORK


@pytest.mark.parametrize("at_once", [1, 3])
@each("onestep", "o07_tiled.pisa_sr*")
def test_tiles_of_pisa(case: Case, at_once: int) -> None:
    given = case.tensors
    named = {"default": Strengths()}
    named |= {f"pix{pix:g}_sem{sem:g}": Strengths(pix, sem) for pix, sem in json.loads(case.notes["pairs"])}
    assert named.keys() == given.keys() - {"context", "latent"}
    for name, strengths in named.items():
        predict = denoiser(case.root, PISA_KIND, given["context"], strengths)
        tiled = Tiled(predict, tiles(given["latent"], case.notes), at_once, weight=weight_of(PISA_KIND))
        got = tiled(given["latent"], torch.tensor(1), given["latent"])
        assert off_by(got, given[name]) <= NETWORK, name


def truncated(rgb: Tensor) -> Tensor:
    return (rgb.clamp(0, 1)[0] * 255).byte().permute(1, 2, 0)


@pytest.mark.parametrize("kind", ["adain", "wavelet"])
@each_group("onestep", "o08_color*", lambda case: case.groups("result_u8"))
def test_colours(case: Case, part: str, kind: str) -> None:
    given = case.under(part)
    got = getattr(colorfix, f"fix_colors_by_{kind}")(picture(given["result_u8"]), picture(given["source_u8"]))
    assert off_by(got, given[f"{kind}_float"]) <= COLOUR
    assert close(truncated(got), given[f"{kind}_u8"])


def close(got: Tensor, want: Tensor, most: int = 1) -> bool:
    """At most so many levels off, on less than a thousandth of the values."""
    wrong = (got.int() - want.int()).abs()
    return got.shape == want.shape and int(wrong.max()) <= most and float((wrong > 0).float().mean()) < 1e-3


@each("onestep", "o1?_sizes*")
def test_sizes_before_the_network(case: Case) -> None:
    """The official programs squeeze to multiples of 8, and may lose a pixel of the smaller side before that."""
    for row in json.loads(case.file(".json").read_text()):
        sides, scale, short = (row["width"], row["height"]), row["upscale"], row["process_size"]
        ours = ensure_short_side((sides[0] * scale, sides[1] * scale), short)
        s = short // scale
        lost = min(sides) < s and any(int(s / min(sides) * side) < round(s / min(sides) * side) for side in sides)
        for own, official in zip(ours, row["prepared"], strict=True):
            assert own // 8 * 8 - official in ((0, 8) if lost else (0,)), row


def run(case: Case, kind: str, start: Tensor) -> Tensor:
    """The joined prediction, as the sampler gets it from the denoiser in tiles."""
    notes = case.notes
    encoder = TextEncoder(*text_parts(case.root), FP32)
    strengths = Strengths(float(notes.get("lambda_pix", 1)), float(notes.get("lambda_sem", 1)))
    predict = denoiser(case.root, kind, encoder.encode([notes["final_prompt"]])[:, :77], strengths)
    laid = tiles(start, notes) if "tile" in notes else None
    inner: OneStepDenoiser | Tiled = Tiled(predict, laid, weight=weight_of(kind)) if laid else predict
    return Recorded(inner)


class Recorded:
    """A denoiser that keeps what it predicted."""

    stride = 1

    def __init__(self, inner: OneStepDenoiser | Tiled) -> None:
        self.inner, self.found = inner, torch.empty(0)

    def __call__(self, *given: object) -> Tensor:
        self.found = self.inner(*given)
        return self.found


def step_of(case: Case, kind: str) -> OneStep:
    known = {OSEDIFF_KIND: OneStep(999), PISA_KIND: OneStep(1, residual=True)}
    return known.get(kind) or OneStep(int(case.notes["timestep"]))


@each("onestep", "o09_pipeline*")
def test_a_whole_run(case: Case) -> None:
    check_run(case, program(case))


@each("onestep", "o12_pipeline*")
def test_a_whole_run_of_gdpo(case: Case) -> None:
    check_run(case, program(case))


def check_run(case: Case, kind: str) -> None:
    """From the prepared picture to the output's levels."""
    given, codec = case.tensors, Codec.of(vae(case.root, kind), FP32)
    prepared = picture(given["prepared_u8"])
    start = codec.encode(prepared, given["posterior_noise"])
    assert off_by(start, given["latent"]) <= PIPELINE
    if "noised" in given:
        start = diffuse_latents(start, given["noise"], alpha_bar(int(case.notes["noise_timestep"])))
        assert off_by(start, given["noised"]) <= PIPELINE
    predict = run(case, kind, start)
    clean = run_sampler(predict, step_of(case, kind), start, start)
    assert off_by(predict.found, given["pred"]) <= PIPELINE
    assert off_by(clean, given["x0"]) <= PIPELINE
    decoded, fix = truncated(codec.decode(clean)), FIXES[case.notes["align"]]
    assert close(decoded, given["output_u8" if fix == "none" else "decoded_u8"])
    rows = colorfix.fix_colors(fix, picture(decoded), lambda rows: prepared[:, :, rows])
    fixed, want = truncated(rows(slice(0, decoded.shape[0]))), given["output_u8"]
    size = (want.shape[1], want.shape[0])  # of a picture that was enlarged first, the official program shrinks again
    assert close(torch.from_numpy(resize_array(fixed.numpy(), size)), want, 4)
