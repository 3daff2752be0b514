"""Test that training works: a tiny PASD before and after `srcli train pasd`, on degraded patches it never saw.

python -m benchmarks.training_proof [--out DIR] [--prior 1200] [--steps 300]

Everything is made here, from scikit-image's photographs. The VAE is set by hand: a latent is the colour of 8x8 pixels,
and the decoder interpolates, so details are 8 pixels or coarser. A small UNet learns to draw such pictures, with the
diffusion loss; it is the frozen prior. Then the real commands train an adapter around it (`train pasd`), degrade
patches of other photographs (`degrade`), restore them with the adapter's start and its end (`upscale`, equal seeds)
and measure both against the truth (`evaluate`). About six minutes on one core.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import skimage.data
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from srcli.tasks import CLEAN_PROMPT
from srcli.train.pictures import to_levels, to_unit
from srcli.train.systems.diffusion import add_noise, cumulated_alphas, decode_latents, sample_latents
from srcli.train.systems.frozen import FrozenBase, FrozenPromptEncoder, open_frozen
from srcli.train.writing import write_component
from srcli.weights.store import Store

TINY_BASE = Path(__file__).parents[1] / "tests/golden/pasd/tiny/base"  # its text encoder, tokenizer and scheduler
LEARNED = ("chelsea", "rocket", "retina", "hubble_deep_field", "immunohistochemistry", "brick", "moon", "coins")
HELD_OUT = ("astronaut", "coffee")
SIDE, FACTOR = 64, 8  # of a patch, in pixels; pixels of a side per latent
CONSTANT = 100.0  # far above what a channel holds: group norm then divides by a constant
SPOILED = "degradation.toml"
DEGRADATION = """preset = "pasd"
scale = 1

[first]
sigma = [15, 60]

[second]
sigma = [15, 60]
"""


def set_vae() -> AutoencoderKL:
    """A VAE that averages and interpolates: three of its four latents are colours, -1..1, the last is 0."""
    vae = AutoencoderKL(
        block_out_channels=[8] * 4,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=1,
        scaling_factor=1.5,
    ).requires_grad_(False)
    for parameter in vae.parameters():
        parameter.zero_()  # residual blocks and attention then pass on what they get
    for half in (vae.encoder, vae.decoder):
        _carry_colours(half)
    for block in vae.encoder.down_blocks[:-1]:
        _set_kernel(block.downsamplers[0].conv, torch.tensor([0.5, 0.5, 0.0]))
    for block in vae.decoder.up_blocks[:-1]:
        _set_kernel(block.upsamplers[0].conv, torch.tensor([0.25, 0.5, 0.25]))
    vae.quant_conv.weight[range(8), range(8)] = 1.0
    vae.quant_conv.bias[4:] = -30.0  # the logarithm of the posterior's variance
    vae.post_quant_conv.weight[range(4), range(4)] = 1.0
    return vae


def _carry_colours(half: nn.Module) -> None:
    """Channels are the colours, their negatives, and two constants: their norm is known, and SiLU can be undone."""
    for colour in range(3):
        half.conv_in.weight[colour, colour, 1, 1], half.conv_in.weight[colour + 3, colour, 1, 1] = 1.0, -1.0
        half.conv_out.weight[colour, colour, 1, 1], half.conv_out.weight[colour, colour + 3, 1, 1] = 1.0, -1.0
    half.conv_in.bias[6], half.conv_in.bias[7] = CONSTANT, -CONSTANT
    half.conv_norm_out.weight[:] = CONSTANT / 2


def _set_kernel(conv: nn.Conv2d, taps: Tensor) -> None:
    """Filter the colours by `taps` down and across; leave the constants alone."""
    for channel in range(6):
        conv.weight[channel, channel] = torch.outer(taps, taps)
    for channel in (6, 7):
        conv.weight[channel, channel, 1, 1] = 1.0


def small_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=[32, 64],
        down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def write_photographs(names: Sequence[str], vae: AutoencoderKL, side: int, folder: Path, every: int = 1) -> None:
    """Squares of photographs, at their size and at half of it, as the VAE shows them; of these `every` n-th."""
    folder.mkdir(parents=True)
    squares = [square for name in names for square in cut_squares(name, side)]
    for index, square in enumerate(squares[::every]):
        shown = decode_latents(vae, encode(vae, to_unit(np.asarray(square))[None]))
        Image.fromarray(to_levels(shown[0])).save(folder / f"{index:04d}.png")


def cut_squares(name: str, side: int) -> Iterator[Image.Image]:
    photo = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    for shown in (photo, photo.reduce(2)):
        for top in range(0, shown.height - side + 1, side):
            for left in range(0, shown.width - side + 1, side):
                yield shown.crop((left, top, left + side, top + side))


def encode(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    side = pictures.shape[-1] // FACTOR
    return sample_latents(vae, pictures * 2 - 1, torch.zeros(len(pictures), 4, side, side))


def learn_prior(frozen: FrozenBase, folder: Path, steps: int) -> None:
    """The UNet learns to draw what is in the folder, with the two texts that it will be given."""
    vae, unet, base = frozen.base.vae, frozen.unet.requires_grad_(True).train(), frozen.base
    pictures = torch.stack([to_unit(np.asarray(Image.open(file))) for file in sorted(folder.iterdir())])
    latents = torch.cat([encode(vae, part) for part in pictures.split(16)])
    texts = FrozenPromptEncoder(base.tokenizer, base.text_encoder)(["", CLEAN_PROMPT])
    alphas, side, batch = cumulated_alphas(base.schedule), SIDE // FACTOR, 16
    optimizer = torch.optim.AdamW(unet.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        top, left = (int(torch.randint(length - side + 1, ())) for length in latents.shape[-2:])
        x = latents[torch.randint(len(latents), (batch,)), :, top : top + side, left : left + side]
        x = x.flip(-1) if step % 2 else x
        noise, t = torch.randn_like(x), torch.randint(len(alphas), (batch,))
        loss = mse_loss(unet(add_noise(x, noise, alphas[t]), t, texts[torch.randint(2, (batch,))]).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def make_base(folder: Path, steps: int) -> None:
    """A base model in diffusers' layout, beside the photographs."""
    shutil.copytree(TINY_BASE, folder / "base")
    vae, unet = set_vae(), small_unet()
    write_photographs(LEARNED, vae, SIDE + SIDE // 2, folder / "learned")
    write_photographs(HELD_OUT, vae, SIDE, folder / "truth", every=5)
    for name, net in (("vae", vae), ("unet", unet)):
        write_component(folder / "base" / name, net.state_dict(), dict(net.config))
    frozen = open_frozen(str(folder / "base"), "width32", Store(offline=True))
    learn_prior(frozen, folder / "learned", steps)
    write_component(folder / "base/unet", frozen.unet.state_dict(), dict(unet.config))


def run(*words: object) -> str:
    """Run a command of srcli; returns its output."""
    command = [sys.executable, "-m", "srcli", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def train(folder: Path, out: str, steps: int, *more: object) -> Path:
    paths = ["--data", folder / "learned", "--out", folder / out, "--base-model", folder / "base"]
    how = ["--side", SIDE, "--degradation", folder / SPOILED, "--batch", 8, "--accumulate", 1, "--log-every", 50]
    run("train", "pasd", *paths, *how, "--steps", steps, "--device", "cpu", "--offline", *more)
    return folder / out / "adapter"


def restore(folder: Path, adapter: Path, out: str) -> None:
    paths = [folder / "degraded", "--base-model", folder / "base", "--adapter", adapter, "-o", f"{folder / out}/"]
    how = ["--scale", 1, "--process-size", SIDE, "--guidance", 1, "--caption", "none", "--color-fix", "none"]
    run("upscale", *paths, *how, "--engine", "pasd", "--suffix", "", "--offline", "--quiet", "--no-journal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a new folder to keep everything in")
    parser.add_argument("--prior", type=int, default=1200, help="steps of the prior")
    parser.add_argument("--steps", type=int, default=300, help="steps of the adapter")
    args = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as fresh:
        folder = args.out or Path(fresh)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SPOILED).write_text(DEGRADATION)
        make_base(folder, args.prior)
        run("degrade", folder / "truth", "-o", folder / "degraded", "--preset", folder / SPOILED)
        restore(folder, train(folder, "start", 1, "--lr", 0), "before")
        restore(folder, train(folder, "run", args.steps, "--lr", 5e-4, "--schedule", "cosine"), "after")
        against = ["--against", folder / "before", "--against", folder / "degraded"]
        print(run("evaluate", folder / "after", "-r", folder / "truth", *against, "--markdown", "--border", 0))


if __name__ == "__main__":
    main()
