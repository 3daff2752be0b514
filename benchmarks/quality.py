"""Quality of the built-in model on photographs: a table and contact sheets.

python -m benchmarks.quality FOLDER [--out DIR] [--weights FILE] [--held-out] [--scikit-image]
    [--teachers DIR] [--features FILE]

Every sharp picture is reduced x4 in four ways, with fixed seeds, and enlarged again: clean (MATLAB's bicubic), degraded
(blur, noise of sigma 1.5-6, JPEG 55-90), heavy (noise of sigma 8-25, JPEG 40-85) and raw (coloured noise of sigma 5-30
that was never stored as JPEG). PSNR and SSIM are measured on Y without a border of 4 pixels. --held-out takes only the
tenth that training leaves out, told by file name; --scikit-image then measures the photographs that come with that
package, which no training saw. --teachers adds published networks to compare with; --features, a
feature network that training did not use, adds the distance of features.
"""

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import skimage
import torch
from numpy.typing import NDArray
from PIL import Image

from srcli.engines.builtin.engine import BuiltinEngine, block_side, find_packaged
from srcli.engines.builtin.weights import read_model
from srcli.engines.runtime.device import choose_device
from srcli.errors import PictureError, SrcliError
from srcli.imaging.picture import Picture
from srcli.metrics.matlab import reduce_bicubic
from srcli.metrics.registry import METRICS
from srcli.metrics.sample import Sample
from srcli.models.builtin import UPSCALE_FACTOR
from srcli.pipeline import EnginePipeline
from srcli.settings import DeviceChoice, Sampling
from srcli.tasks import UPSCALE as ENLARGE
from srcli.tasks import Job
from srcli.train.builtin.features import FeatureNetwork, feature_distance
from srcli.train.builtin.photos import decode_photo, is_held_out
from srcli.train.builtin.teachers import Teacher, read_teacher
from srcli.train.pictures import survey_pictures

Pixels = NDArray[np.uint8]
Method = Callable[[Pixels], Pixels]
MEASURES = ("psnr-y", "ssim-y", "gmsd")
FEATURES = "features"
SCIKIT_IMAGE = (
    *(f"{name}.png" for name in ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel")),
    *("hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg"),
)
CROP = 200  # of each picture on the sheet: its middle, at 100 %
ENDS = {"faithful, --fidelity 1": 1.0, "default": None, "crisp, --fidelity 0": 0.0}


def reduce_cleanly(sharp: Pixels, seed: int) -> Pixels:
    return reduce_bicubic(sharp, UPSCALE_FACTOR)


def degrade(sharp: Pixels, seed: int) -> Pixels:
    return _spoil(sharp, np.random.default_rng((2026, seed)), blur=(0.8, 2.0), noise=(1.5, 6), quality=(55, 90))


def degrade_heavily(sharp: Pixels, seed: int) -> Pixels:
    return _spoil(sharp, np.random.default_rng((77, seed)), blur=(0.5, 2.5), noise=(8, 25), quality=(40, 85))


def add_raw_noise(sharp: Pixels, seed: int) -> Pixels:
    rng, small = np.random.default_rng((5, seed)), reduce_bicubic(sharp, UPSCALE_FACTOR)
    return np.clip(np.rint(small + rng.normal(0, rng.uniform(5, 30), small.shape)), 0, 255).astype(np.uint8)


def _spoil(sharp: Pixels, rng: np.random.Generator, **ranges: tuple[float, float]) -> Pixels:
    import cv2

    soft = np.asarray(cv2.GaussianBlur(sharp, (0, 0), rng.uniform(*ranges["blur"])), np.uint8)
    small = reduce_bicubic(soft, UPSCALE_FACTOR)
    noisy = small + rng.normal(0, rng.uniform(*ranges["noise"]), small.shape)
    return store_as_jpeg(noisy, int(rng.uniform(*ranges["quality"])))


def store_as_jpeg(levels: NDArray[np.floating], quality: int) -> Pixels:
    """What is left of levels after they were a JPEG file."""
    stored = io.BytesIO()
    Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8)).save(stored, "JPEG", quality=quality)
    return np.asarray(Image.open(stored))


KINDS = {"clean": reduce_cleanly, "degraded": degrade, "heavy": degrade_heavily, "raw": add_raw_noise}


def cut_middle(photo: Pixels, most: int) -> Pixels:
    height, width = (min(most, side // UPSCALE_FACTOR * UPSCALE_FACTOR) for side in photo.shape[:2])
    top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
    return np.ascontiguousarray(photo[top : top + height, left : left + width])


def read_pictures(folder: Path, held_out: bool, most: int) -> list[Pixels]:
    files = [found.path for found in survey_pictures(folder, 64).usable]
    opened = (decode_photo(file) for file in files if is_held_out(file) or not held_out)
    return [cut_middle(photo, most) for photo in opened if not isinstance(photo, PictureError)]


def read_scikit_image(most: int) -> list[Pixels]:
    """The photographs that come with scikit-image."""
    opened = (decode_photo(Path(skimage.__file__).parent / "data" / name) for name in SCIKIT_IMAGE)
    return [cut_middle(photo, most) for photo in opened if not isinstance(photo, PictureError)]


def resize_by(method: Image.Resampling) -> Method:
    def enlarge(small: Pixels) -> Pixels:
        height, width = small.shape[:2]
        return np.asarray(Image.fromarray(small).resize((UPSCALE_FACTOR * width, UPSCALE_FACTOR * height), method))

    return enlarge


def run_builtin(weights: Path | None, fidelity: float | None) -> Method:
    device = choose_device(DeviceChoice(device="cpu"))
    model = read_model(weights or find_packaged("builtin-upscale")[0]).to(device.torch, device.dtype)
    pipeline = EnginePipeline(BuiltinEngine(model, device, "", block=block_side(device)), device)
    job = Job(task=ENLARGE, sampling=Sampling(fidelity=fidelity))
    return lambda small: np.asarray(pipeline.run(Picture(pixels=small), job).pixels, np.uint8)


def ask(teacher: Teacher) -> Method:
    @torch.inference_mode()
    def enlarge(small: Pixels) -> Pixels:
        return _levels(teacher(_tensor(small)))

    return enlarge


def _tensor(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255


def _levels(picture: torch.Tensor) -> Pixels:
    return (picture[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def list_methods(args: argparse.Namespace) -> dict[str, Method]:
    methods = {"bicubic": resize_by(Image.Resampling.BICUBIC), "Lanczos": resize_by(Image.Resampling.LANCZOS)}
    for kind in ("span", "general", "dense") if args.teachers else ():
        file = args.teachers / f"{kind}.safetensors"
        if file.is_file():
            methods[kind] = ask(read_teacher(kind, file, torch.device("cpu"), torch.float32))
    return methods | {name: run_builtin(args.weights, fidelity) for name, fidelity in ENDS.items()}


def measure(result: Pixels, truth: Pixels, features: FeatureNetwork | None) -> dict[str, float]:
    sample = Sample(result, truth, border=UPSCALE_FACTOR)
    found = {name: METRICS[name].measure(sample) for name in MEASURES}
    if features is not None:
        with torch.inference_mode():
            found[FEATURES] = float(feature_distance(features, _tensor(result), _tensor(truth)))
    return found


def make_table(scores: Mapping[str, list[dict[str, float]]]) -> str:
    names = list(next(iter(scores.values()))[0])
    digits = {"psnr-y": 2}
    lines = ["| method | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for method, found in scores.items():
        means = (f"{np.mean([f[name] for f in found]):.{digits.get(name, 4)}f}" for name in names)
        lines.append(f"| {method} | " + " | ".join(means) + " |")
    return "\n".join(lines)


def make_sheet(rows: list[list[Pixels]]) -> Image.Image:
    cut = [np.concatenate([cut_middle(p, CROP) for p in row], axis=1) for row in rows]
    return Image.fromarray(np.concatenate([row for row in cut if row.shape == cut[0].shape]))


def report(panel: str, pictures: list[Pixels], methods: dict[str, Method], args: argparse.Namespace) -> Iterator[str]:
    features = FeatureNetwork(args.features) if args.features else None
    every = max(1, len(pictures) // args.rows)
    yield f"{panel}: {len(pictures)} pictures, central {args.side}x{args.side} at most, x{UPSCALE_FACTOR}"
    for kind, spoil in KINDS.items():
        scores: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
        rows = []
        for index, truth in enumerate(pictures):
            small = spoil(truth, index)
            results = {name: method(small) for name, method in methods.items()}
            for name, result in results.items():
                scores[name].append(measure(result, truth, features))
            if index % every == 0:
                rows.append([*results.values(), truth])
        make_sheet(rows).save(args.out / f"{panel}-{kind}.png")
        yield f"\n{kind}\n\n{make_table(scores)}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the built-in model on sharp photographs.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/quality"))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--teachers", type=Path)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--held-out", action="store_true", help="only the tenth that training leaves out")
    parser.add_argument("--scikit-image", action="store_true", help="then the photographs that come with scikit-image")
    parser.add_argument("--rows", type=int, default=8, help="pictures on the sheets")
    parser.add_argument("--side", type=int, default=256, help="of the middle that is measured")
    args = parser.parse_args()
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        panels = {args.folder.name: read_pictures(args.folder, args.held_out, args.side)}
        if args.scikit_image:
            panels["scikit-image"] = read_scikit_image(args.side)
        methods = list_methods(args)
        text = "\n\n".join("\n".join(report(name, pictures, methods, args)) for name, pictures in panels.items())
    except SrcliError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    (args.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
