"""What a model makes of pictures, beside the plain resizes and the truth: for tables and contact sheets."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from srcli.engines.builtin.spec import STEPS
from srcli.models.builtin import UP, Builtin
from srcli.sampling.cosine import Cosine
from srcli.sampling.noise import NoiseField
from srcli.train.data import tensor
from srcli.train.degradations import Pixels, resize, rounded

STRENGTHS = {"smooth end": 0.0, "default": 0.5, "detailed end": 1.0}
TEXT, GAP = 18, 4


@torch.inference_mode()
def sampled(model: Builtin, small: Pixels, seed: int = 0) -> dict[str, Pixels]:
    """The model's results at the strengths above, from one sampling."""
    device = next(model.parameters()).device
    picture = tensor(small[None]).to(device)
    guess = model.predictor(picture)
    x = NoiseField(seed).draw((1, UP**2, *guess.features.shape[-2:])).to(device)
    scheduler = Cosine(STEPS)
    for time in scheduler.timesteps:
        signal = torch.cos(time.float() * (torch.pi / 2))[None].to(device)
        x = scheduler.step(model.detail(x, signal, guess.features, guess.spread), time, x).prev_sample
    return {name: pixels(model.render(guess, x, strength)) for name, strength in STRENGTHS.items()}


def pixels(rgb: Tensor) -> Pixels:
    return rounded(rgb[0].float().permute(1, 2, 0).cpu().numpy() * 255)


def results(model: Builtin, small: Pixels, seed: int = 0) -> dict[str, Pixels]:
    """Bicubic, Lanczos and the model's three, by name."""
    height, width = (side * model.shape.scale for side in small.shape[:2])
    plain = {
        "bicubic": resize(small, width, height),
        "Lanczos": resize(small, width, height, Image.Resampling.LANCZOS),
    }
    return plain | sampled(model, small, seed)


def contact(rows: Sequence[Mapping[str, Pixels]]) -> Image.Image:
    """One row a picture, one column a name, at 100 %; names on top."""
    height, width = next(iter(rows[0].values())).shape[:2]
    across, down = width + GAP, height + GAP
    sheet = Image.new("RGB", (len(rows[0]) * across - GAP, TEXT + len(rows) * down), "white")
    draw = ImageDraw.Draw(sheet)
    for x, name in enumerate(rows[0]):
        draw.text((x * across + 4, 2), name, "black", ImageFont.load_default(14))
        for y, row in enumerate(rows):
            sheet.paste(Image.fromarray(np.ascontiguousarray(row[name])), (x * across, TEXT + y * down))
    return sheet


def middle(picture: Pixels, side: int, multiple: int) -> Pixels:
    """The central square of at most `side`, its own side a multiple of `multiple`."""
    least = min(side, *picture.shape[:2]) // multiple * multiple
    top, left = ((n - least) // 2 for n in picture.shape[:2])
    return picture[top : top + least, left : left + least]
