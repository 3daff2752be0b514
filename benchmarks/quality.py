"""Quality of the built-in model on photographs: a table and a contact sheet.

python benchmarks/quality.py FOLDER [--out DIR] [--weights FILE] [--held-out]

Every sharp picture in FOLDER is reduced x4 in two ways, clean (bicubic) and degraded (blur, bicubic, noise, JPEG;
fixed seeds), and enlarged again. --held-out takes only the tenth that training leaves out, told by file name.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from srcli.engines.builtin.engine import packaged, read_model
from srcli.engines.runtime.device import choose_device
from srcli.errors import SrcliError
from srcli.models.builtin import UP, Builtin
from srcli.settings import DeviceChoice
from srcli.train import data
from srcli.train.degradations import Pixels, jpeg, resize, rounded
from srcli.train.metrics import Scores, compare
from srcli.train.sheet import contact, middle, results

SIDE = 512
CUT = 320
"""Side of each picture on the sheet: its middle, at 100 %."""


def clean(sharp: Pixels, seed: int) -> Pixels:
    return resize(sharp, sharp.shape[1] // UP, sharp.shape[0] // UP)


def degraded(sharp: Pixels, seed: int) -> Pixels:
    """Blur of sigma 0.8-2.0, bicubic, noise of sigma 1.5-6, JPEG 55-90."""
    import cv2

    rng = np.random.default_rng((2026, seed))
    soft = cv2.GaussianBlur(sharp, (0, 0), rng.uniform(0.8, 2.0)).astype(np.uint8)
    small = clean(soft, seed)
    noisy = rounded(small + rng.normal(0, rng.uniform(1.5, 6), small.shape).astype(np.float32))
    return jpeg(noisy, int(rng.integers(55, 91)))


SPOILS = {"clean": clean, "degraded": degraded}


def pictures(folder: Path, held_out: bool) -> Iterator[tuple[str, Pixels]]:
    files = [f for f in data.find(folder) if data.held_out(f) or not held_out]
    for file in files:
        picture = data.decode(file)
        if picture is not None and min(picture.shape[:2]) >= 64:
            yield file.stem, middle(picture, SIDE, 4 * UP)


def table(scores: dict[str, list[Scores]]) -> str:
    lines = ["| method | PSNR-Y | SSIM | GMSD | gradient | HF near / far |", "|---|---|---|---|---|---|"]
    for name, several in scores.items():
        s = Scores.mean(several)
        lines.append(
            f"| {name} | {s.psnr:.2f} | {s.ssim:.4f} | {s.gmsd:.4f} | {s.gradient:.2f} | {s.near:.2f} / {s.far:.2f} |"
        )
    return "\n".join(lines)


def measure(model: Builtin, folder: Path, held_out: bool, out: Path, rows: int) -> str:
    sharp = list(pictures(folder, held_out))
    parts = [f"{len(sharp)} pictures, central {SIDE}x{SIDE} at most, x{UP}"]
    every = max(1, len(sharp) // rows)
    for kind, spoil in SPOILS.items():
        scores: dict[str, list[Scores]] = {}
        kept = []
        for index, (_, truth) in enumerate(sharp):
            made = results(model, spoil(truth, index), index)
            for name, result in made.items():
                scores.setdefault(name, []).append(compare(result, truth))
            if index % every == 0 and min(truth.shape[:2]) >= CUT:
                kept.append({n: middle(p, CUT, UP) for n, p in (made | {"truth": truth}).items()})
        contact(kept).save(out / f"sheet-{kind}.png")
        parts += ["", kind, "", table(scores)]
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the built-in model on sharp photographs.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/quality"))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--held-out", action="store_true", help="only the tenth that training leaves out")
    parser.add_argument("--rows", type=int, default=10, help="pictures on the sheets")
    given = parser.parse_args()
    try:
        path = given.weights or packaged("builtin-upscale")[0]
        model = read_model(path, choose_device(DeviceChoice(device="cpu")))
        given.out.mkdir(parents=True, exist_ok=True)
        text = measure(model, given.folder, given.held_out, given.out, given.rows)
    except SrcliError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    (given.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
