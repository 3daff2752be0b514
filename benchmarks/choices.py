"""The picture of docs/choosing.md: results of the built-in engine on small pictures with different options.

The photographs are in the public domain and come with scikit-image; every result is shown pixel by pixel.

python -m benchmarks.choices [--out docs/choices.jpg]
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from srcli import Pipeline

SIDE, BAR = 200, 18  # pixels of a crop, and of the line of text above it
Ways = list[tuple[str, Image.Image]]


def main() -> None:
    parser = argparse.ArgumentParser(description="The picture of docs/choosing.md.")
    parser.add_argument("--out", type=Path, default=Path("docs/choices.jpg"))
    rows = [fidelity(), damage(), restore()]
    sheet = Image.new("RGB", (4 * SIDE, len(rows) * (SIDE + BAR)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, ways in enumerate(rows):
        for column, (text, picture) in enumerate(ways):
            left, top = column * SIDE, row * (SIDE + BAR)
            draw.text((left + 4, top + 3), text, fill="black")
            sheet.paste(picture, (left, top + BAR))
    sheet.save(parser.parse_args().out, quality=88, optimize=True)


def photograph(name: str) -> Image.Image:
    from skimage import data

    return Image.fromarray(getattr(data, name)())


def fidelity() -> Ways:
    """The eye of a cat, reduced to a quarter."""
    source = reduce(photograph("chelsea").crop((100, 60, 420, 300)), 0.5)
    run, at = Pipeline.load("builtin").upscale, (40, 40)
    return [
        ("bicubic", crop(source.resize((640, 480), Image.Resampling.BICUBIC), at)),
        *((f"--fidelity {value}", crop(run(source, fidelity=value).image, at)) for value in (1.0, 0.5, 0.0)),
    ]


def damage() -> Ways:
    """A portrait, reduced, with the noise of a bad light."""
    small = np.asarray(reduce(photograph("astronaut").crop((120, 0, 320, 200)), 0.5)).astype(np.float32)
    noisy = small + np.random.default_rng(3).normal(0, 9, small.shape)
    source = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    run, at = Pipeline.load("builtin").upscale, (110, 60)
    return [
        ("bicubic", crop(source.resize((400, 400), Image.Resampling.BICUBIC), at)),
        *((f"--damage {word}", crop(run(source, damage=word).image, at)) for word in ("none", "heavy")),
        ("as it finds it", crop(run(source).image, at)),
    ]


def restore() -> Ways:
    """A photograph that was stored too small, as a JPEG file."""
    stored = BytesIO()
    reduce(photograph("rocket").crop((180, 60, 420, 300)), 0.8).save(stored, "JPEG", quality=22)
    source = Image.open(stored).convert("RGB")
    builtin, at = Pipeline.load("builtin"), (90, 120)
    restored = Pipeline.load("builtin", task="restore").restore(source, scale=2.0, tone="none")
    twice = source.resize((2 * source.width, 2 * source.height), Image.Resampling.BICUBIC)
    return [
        ("bicubic", crop(twice, at)),
        ("upscale --fidelity 1", crop(builtin.upscale(source, scale=2.0, fidelity=1.0).image, at)),
        ("upscale", crop(builtin.upscale(source, scale=2.0).image, at)),
        ("restore-old-photo", crop(restored.image, at)),
    ]


def reduce(picture: Image.Image, share: float) -> Image.Image:
    size = round(picture.width * share), round(picture.height * share)
    return picture.resize(size, Image.Resampling.BICUBIC)


def crop(picture: Image.Image, at: tuple[int, int]) -> Image.Image:
    """A part as large as a field, pixel by pixel."""
    left, top = at
    return picture.crop((left, top, left + SIDE, top + SIDE))


if __name__ == "__main__":
    main()
