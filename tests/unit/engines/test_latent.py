"""What the engines over latents share."""

import inspect
from dataclasses import dataclass

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from srcli.engines.latent.codec import Codec, is_valid_picture
from srcli.engines.latent.schedulers import build_scheduler, diffuse_latents, ends_in_noise, guided_steps
from srcli.engines.latent.sizes import ensure_short_side
from srcli.engines.pasd.sampling import draw_initial_latents
from srcli.engines.runtime.device import Device
from srcli.errors import InputError
from srcli.models.banded_vae import decode_in_bands, encode_in_bands
from srcli.models.row_bands import Bands
from srcli.sampling.noise import NoiseField
from srcli.sampling.sampler import run_sampler

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
V = SD | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


@dataclass(frozen=True)
class Knowing:
    """A denoiser that knows the picture, and so predicts its noise exactly."""

    truth: Tensor
    scheduler: object
    stride = 8

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor, where: None = None) -> Tensor:
        alpha = self.scheduler.alphas_cumprod[int(t)]
        noise = (x - alpha.sqrt() * self.truth) / (1 - alpha).sqrt()
        if self.scheduler.config.prediction_type == "epsilon":
            return noise
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * self.truth


@pytest.mark.parametrize("config", [SD, V], ids=["epsilon", "v"])
@pytest.mark.parametrize("name", ["unipc", "dpm++", "ddim", "euler", "lcm", "ddpm"])
@pytest.mark.parametrize("level", [None, 900])
def test_every_scheduler_finds_what_the_denoiser_knows(name: str, config: dict, level: int | None) -> None:
    made = build_scheduler(name, config, 12)
    truth, noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)), NoiseField(3)
    x = draw_initial_latents(torch.zeros(1, 4, 8, 8), made, noise, level)
    told: list[Tensor] = []
    hear = lambda done, total, x, expected: told.append(expected)  # noqa: E731
    got = run_sampler(Knowing(truth, made), made, x, torch.zeros(1), noise, hear)
    assert (got - truth).abs().max() < 0.2
    assert all((expected - truth).abs().max() < 0.2 for expected in told)


@pytest.mark.parametrize("name", ["unipc", "dpm++", "ddim", "euler", "lcm", "ddpm"])
def test_a_step_in_host_memory_is_the_library_s_own(name: str) -> None:
    ours, theirs = build_scheduler(name, SD, 5), build_scheduler(name, SD, 5)
    theirs.step = theirs.step.__wrapped__
    x = y = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for t in ours.timesteps:
        own, library = (
            made.step(0.1 * z, t, z, **({"generator": torch.Generator().manual_seed(2)} if draws else {}))
            for made, z in ((ours, x), (theirs, y))
            for draws in ["generator" in inspect.signature(made.step).parameters]
        )
        assert type(own) is type(library)
        assert {k: v.tolist() for k, v in own.items()} == {k: v.tolist() for k, v in library.items()}
        x, y = own.prev_sample, library.prev_sample


def test_betas_that_end_in_noise_do_not_end_in_nothing() -> None:
    """Rescaled betas stored in a file would give an infinite sigma."""
    alphas = torch.linspace(1, 0, 1001)[1:].square()
    betas = 1 - alphas / torch.cat([torch.ones(1), alphas[:-1]])
    config = {"trained_betas": betas.clamp(max=1).tolist(), "prediction_type": "v_prediction"}
    made = build_scheduler("unipc", config, 5)
    assert torch.isfinite(made.sigmas).all()
    assert ends_in_noise(config)
    assert ends_in_noise(V)
    assert not ends_in_noise(SD)


def test_more_steps_than_a_scheduler_has_are_refused() -> None:
    with pytest.raises(InputError, match="`steps` 900"):
        build_scheduler("lcm", SD, 900)


def test_a_share_of_the_steps_is_guided() -> None:
    timesteps = build_scheduler("unipc", SD, 10).timesteps
    assert len(guided_steps(timesteps, None)) == 10
    assert guided_steps(timesteps, (0.2, 0.5)) == {float(t) for t in timesteps[2:5]}


def test_noise_replaces_what_it_covers() -> None:
    x, noise = torch.ones(3), torch.zeros(3)
    assert torch.equal(diffuse_latents(x, noise, torch.tensor(0.25)), torch.full((3,), 0.5))


@pytest.mark.parametrize(
    ("size", "short", "want"),
    [((100, 50), 40, (100, 50)), ((90, 37), 64, (155, 64)), ((37, 90), 64, (64, 155)), ((4000, 10), 64, (4000, 10))],
)
def test_least_size(size: tuple[int, int], short: int, want: tuple[int, int]) -> None:
    assert ensure_short_side(size, short) == want


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(2)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3}
    return AutoencoderKL(block_out_channels=[8, 8, 16], norm_num_groups=4, **blocks).eval()


@torch.inference_mode()
def test_maps_pass_the_hook_of_each_level(vae: AutoencoderKL) -> None:
    """What a hook adds is there, and one that changes nothing changes nothing."""
    z, seen = torch.randn(1, 4, 7, 9), []
    plain = decode_in_bands(vae, z, Bands(50))
    same = decode_in_bands(vae, z, Bands(50), lambda level, x: seen.append((level, *x.shape[1:])) or x)
    # A hook gives each map a memory of its own, and some processors add in another order there.
    torch.testing.assert_close(same, plain, atol=1e-5, rtol=1e-4)
    assert seen == [(0, 16, 7, 9), (1, 8, 14, 18), (2, 8, 28, 36)]
    assert not torch.allclose(decode_in_bands(vae, z, Bands(50), lambda level, x: x + 1), plain, atol=1e-2)
    picture = torch.rand(1, 3, 28, 36)
    torch.testing.assert_close(encode_in_bands(vae, picture, Bands(50)), vae.encode(picture).latent_dist.parameters)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(4, 4), (12, 20), (36, 4)])
def test_bands_of_any_picture_are_the_whole(vae: AutoencoderKL, size: tuple[int, int]) -> None:
    codec = Codec(vae, Device(torch.device("cpu"), torch.float32), Bands(16))
    picture = torch.rand(1, 3, *size)
    latents = codec.encode(picture, torch.zeros(1))
    mean = vae.encode(picture * 2 - 1).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(latents, mean, rtol=1e-4, atol=1e-5)
    rgb = vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5
    torch.testing.assert_close(codec.decode(latents), rgb, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_maps_that_the_device_has_no_room_for_go_to_host_memory(
    vae: AutoencoderKL, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Bands] = []

    def full(net: AutoencoderKL, z: Tensor, bands: Bands, after: None) -> Tensor:
        tried.append(bands)
        if bands.store is None:
            raise torch.OutOfMemoryError
        return decode_in_bands(net, z, bands, after)

    monkeypatch.setattr("srcli.engines.latent.codec.decode_in_bands", full)
    codec = Codec(vae, Device(torch.device("cpu"), torch.float32), Bands(64))
    z = torch.randn(1, 4, 5, 6)
    torch.testing.assert_close(codec.decode(z), vae.decode(z / vae.config.scaling_factor).sample / 2 + 0.5)
    assert [bands.store for bands in tried] == [None, torch.device("cpu")]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_soundness(bad: float) -> None:
    assert is_valid_picture(torch.tensor([0.0, 1.0]))
    assert not is_valid_picture(torch.zeros(4))
    assert not is_valid_picture(torch.tensor([0.0, 1.0, bad]))
