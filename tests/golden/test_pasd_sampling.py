"""Texts, first latents, tile weights and whole runs of PASD, number by number."""

import ast
import json
from dataclasses import dataclass

import pytest
import torch
from tests.golden.cases import Case, each, each_group, off_by, picture
from tests.golden.pasd_models import nets, text_parts, vae
from torch import Tensor

from srcli.engines.latent.codec import Codec
from srcli.engines.latent.prompts import TextEncoder
from srcli.engines.latent.schedulers import build_scheduler, guided_steps
from srcli.engines.pasd.sampling import BOTH, Nets, PasdDenoiser, draw_initial_latents
from srcli.engines.runtime.device import Device
from srcli.models.patches.install import install
from srcli.models.patches.text_kv_cache import TextKvCache
from srcli.sampling.noise import EXTRA_NOISE, POSTERIOR_NOISE, START_NOISE, NoiseField
from srcli.sampling.sampler import Tiled, run_sampler
from srcli.sampling.tiling import Tile, gaussian_weight, lay_grid
from srcli.settings import Tiling

FP32 = Device(torch.device("cpu"), torch.float32)
UNIPC = "unipc"


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


@dataclass(frozen=True)
class Recorded(NoiseField):
    """The draws that a vector file holds, in place of a seed's."""

    draws: tuple[tuple[int, Tensor], ...] = ()

    def draw(self, shape: tuple[int, ...], step: int = 0) -> Tensor:
        found = dict(self.draws)[step]
        assert found.shape == shape
        return found


def recorded(given: dict[str, Tensor]) -> Recorded:
    names = {POSTERIOR_NOISE: "posterior_noise", START_NOISE: "noise1", EXTRA_NOISE: "noise2"}
    return Recorded(0, draws=tuple((step, given[name]) for step, name in names.items() if name in given))


def schedule(case: Case, folder: str) -> dict:
    return json.loads((case.root / folder / "scheduler" / "scheduler_config.json").read_text())


@each("pasd", "text*")
def test_tokens_and_embeddings(case: Case) -> None:
    encoder = TextEncoder(*text_parts(case.root), FP32)
    prompts = [case.notes[f"prompt{i}"] for i in range(len(case.tensors["input_ids"]))]
    assert [encoder.pieces(prompt)[0] for prompt in prompts] == case.tensors["input_ids"].tolist()
    first_piece = encoder.encode(prompts)[:, : case.tensors["embeds"].shape[1]]  # the official one is cut there
    assert off_by(first_piece, case.tensors["embeds"]) <= 1e-5


def draw_from_level(z: Tensor, made: object, noise: object, level: int, official: bool) -> Tensor:
    """The official code under newer diffusers uses the last timestep if the level is none of the scheduler's."""
    if official and level not in made.timesteps.tolist():
        level = int(made.timesteps[-1])
    return draw_initial_latents(z, made, noise, level)


@each_group("pasd", "d_latent_init*", lambda case: case.groups("latents"))
def test_first_latents(case: Case, part: str) -> None:
    given = case.under(part)
    if "image_u8" not in given:  # pure noise
        made = build_scheduler(UNIPC, schedule(case, "tiny/base"), 20)
        z = torch.zeros_like(given["noise1"])
        assert torch.equal(draw_initial_latents(z, made, recorded(given), None), given["latents"])
        return
    told = json.loads(case.notes[part.strip(".")])
    made = build_scheduler(UNIPC, schedule(case, "tiny/base"), told["steps"])
    codec = Codec.of(vae(case.root), FP32)
    mean, deviation = codec.posterior(picture(given["image_u8"]))
    noise = recorded(given)
    z = codec.encode(picture(given["image_u8"]), noise.draw(mean.shape, POSTERIOR_NOISE))
    official = told["semantics"].startswith("official")
    got = draw_from_level(z, made, noise, told["added_noise_level"], official)
    assert off_by(mean, given["posterior_mean"]) <= 1e-5
    assert off_by(deviation, given["posterior_std"]) <= 1e-5
    assert made.timesteps.tolist() == given["timesteps"].tolist()
    assert off_by(made.sigmas, given["sigmas"]) <= 1e-6
    assert off_by(got, given["latents"]) <= 1e-6


@each_group("pasd", "e_tile_weights*", lambda case: sorted(case.tensors))
def test_tile_weights(case: Case, part: str) -> None:
    want = case.tensors[part]
    assert off_by(gaussian_weight(*want.shape), want) <= 1e-12


def denoiser(case: Case, timesteps: Tensor) -> PasdDenoiser:
    notes, given = case.notes, case.tensors
    parts = nets(case.root, notes["kind"])
    for net in (parts.unet, parts.control):
        install([net], TextKvCache())
    text = torch.cat([given["negative_prompt_embeds"], given["prompt_embeds"]])
    guidance, strength = float(notes["guidance_scale"]), float(notes["conditioning_scale"])
    return PasdDenoiser(Nets(*parts, FP32), text, guidance, strength, guided_steps(timesteps, None))


def first(case: Case, codec: Codec, made: object) -> Tensor:
    noise, shape = recorded(dict(case.tensors)), case.tensors["noise1"].shape
    if case.notes["init_latent_with_noise"] == "True":
        return draw_initial_latents(torch.zeros(shape), made, noise, None)
    z = codec.encode(picture(case.tensors["image_u8"]), noise.draw(shape, POSTERIOR_NOISE))
    official = case.notes["add_noise"].startswith("as pinned")
    return draw_from_level(z, made, noise, int(case.notes["added_noise_level"]), official)


def tiles(case: Case) -> list[Tile] | None:
    """The tiles of a case, laid as its settings ask; the stored ones must be those."""
    if "tile_origins_yx" not in case.tensors:
        return None
    height, width = case.tensors["noise1"].shape[2:]
    size, overlap = int(case.notes["latent_tiled_size"]), int(case.notes["latent_tiled_overlap"])
    laid = lay_grid(height, width, Tiling(size=size, overlap=overlap))
    assert [[t.top, t.left] for t in laid] == case.tensors["tile_origins_yx"].tolist()
    assert {t.width for t in laid} == {ast.literal_eval(case.notes["tiles_nx_ny_size"])[2]}
    return laid


@each("pasd", "g_pipeline*")
def test_a_whole_run(case: Case) -> None:
    given, codec = case.tensors, Codec.of(vae(case.root), FP32)
    made = build_scheduler(UNIPC, schedule(case, case.notes["scheduler"]), int(case.notes["steps"]))
    assert made.timesteps.tolist() == given["timesteps"].tolist()
    assert off_by(made.sigmas, given["sigmas"]) <= 1e-6
    led, laid = denoiser(case, made.timesteps), tiles(case)
    watched = Watched(Tiled(led, laid, 2) if laid else led, given)
    x = run_sampler(watched, made, first(case, codec, made), picture(given["image_u8"]))
    assert off_by(x, given["latents_final"]) <= 2e-5
    rgb = codec.decode(x)
    if "decoded_raw" in given:
        assert off_by(rgb * 2 - 1, given["decoded_raw"]) <= 2e-5
    wrong = (rgb.clamp(0, 1)[0] * 255).round().permute(1, 2, 0) - given["image_out_u8"]
    assert wrong.abs().max() <= 1
    assert (wrong != 0).float().mean() < 1e-3


@dataclass
class Watched:
    """A denoiser whose every step is held against the vectors."""

    inner: object
    given: dict
    step: int = 0

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor, where: None = None) -> Tensor:
        out = self.inner(x, t, hint)
        for name, got, limit in (("sample_in", x, 2e-5), ("model_output_after_cfg", out, 1e-4)):
            if (want := self.given.get(f"step{self.step}.{name}")) is not None:
                assert off_by(got, want) <= limit, f"{name} of step {self.step}"
        self.step += 1
        return out


def stitched(case: Case) -> list[str]:
    return ["step0"] if "step0.stitched_before_cfg" in case.tensors else []


@each_group("pasd", "g_pipeline*", stitched)
def test_tiles_of_the_first_step(case: Case, part: str) -> None:
    """Each tile's two predictions, and how they are stitched before guidance."""
    given, laid = case.tensors, tiles(case)
    t, hint = given["timesteps"][0], picture(given["image_u8"])
    led = denoiser(case, given["timesteps"])
    x = given[f"{part}.sample_in"]
    for index, tile in enumerate(laid):
        embedding = led._embedding(tile.crop(hint, 8), [tile])
        both = led.predict(tile.crop(x).repeat(2, 1, 1, 1), t, embedding.repeat(2, 1, 1, 1), BOTH)
        assert off_by(both, given[f"{part}.tile{index:02d}.unet_out"]) <= 1e-5
    away, shown = (Tiled(Half(led, half), laid)(x, t, hint) for half in (0, 1))
    assert off_by(torch.cat([away, shown]), given[f"{part}.stitched_before_cfg"]) <= 1e-5


@dataclass(frozen=True)
class Half:
    """One of the two predictions that guidance mixes."""

    led: PasdDenoiser
    half: int
    stride = 8

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor, where: list[Tile]) -> Tensor:
        embedding = self.led._embedding(hint, where)
        return self.led.predict(x.repeat(2, 1, 1, 1), t, embedding.repeat(2, 1, 1, 1), BOTH).chunk(2)[self.half]
