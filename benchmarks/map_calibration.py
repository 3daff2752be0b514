"""Calibrates the map of uncertainty (`--map`) on pictures whose truth is known, and draws how well it holds.

python -m benchmarks.map_calibration FOLDER [--out DIR] [--engine NAME] [--side 320] [--seeds 4]

Held-out photographs (benchmarks/quality.py) and three of scikit-image are made small, or spoiled, in three ways, and
made large, or repaired, again. A place is wrong where its mean difference from the truth over 5x5 pixels and the three
channels is more than 10 levels of 255. Three numbers of a logistic regression are fitted to one half of the pictures,
for enlargement over all scales together and for restoration; the other half shows how often a value of the map is
right. The numbers belong in the spec of the engine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks.quality import cut_middle, read_pictures, store_as_jpeg
from srcli.engines.calibration import ERROR_LEVELS, Calibration, log_levels
from srcli.engines.choose import settle_choice
from srcli.imaging.picture import Picture
from srcli.metrics.matlab import reduce_bicubic
from srcli.pipeline import EnginePipeline
from srcli.settings import DeviceChoice, ModelChoice, TargetSize
from srcli.tasks import RESTORE, UPSCALE, Job, Task
from srcli.uncertainty.map import exceed_as_draws, measure_added, measure_error, measure_spread

SCALES = (2, 4, 8)
BORDER = 4  # pixels left out at the edges, as `evaluate` does
SAMPLED = 3000  # places of a picture
BINS = 10
SPOILS = {"clean": None, "degraded": ((0.8, 2.0), (1.5, 6), (55, 90)), "heavy": ((0.5, 2.5), (8, 25), (40, 85))}
COLOURS = ("#c0392b", "#2980b9", "#1e8449", "#8e44ad")
Pixels = NDArray[np.uint8]
Values = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """Places of one picture under one damage: what the map is made of, and whether they are wrong."""

    picture: int
    scale: int
    spread: Values
    added: Values
    wrong: NDArray[np.bool_]


def spoil(truth: Pixels, scale: int, kind: str, seed: int) -> Pixels | None:
    """The picture made small, and damaged after its kind; a clean one of the same size is no case."""
    if SPOILS[kind] is None:
        return reduce_bicubic(truth, scale) if scale > 1 else None
    blur, noise, quality = SPOILS[kind]
    rng = np.random.default_rng((seed, scale, len(kind)))
    soft = np.asarray(cv2.GaussianBlur(truth, (0, 0), rng.uniform(*blur) * scale / 4), np.uint8)
    small = reduce_bicubic(soft, scale) if scale > 1 else soft
    return store_as_jpeg(small + rng.normal(0, rng.uniform(*noise), small.shape), int(rng.uniform(*quality)))


def find_cases(truths: Sequence[Pixels], task: Task, scales: Sequence[int], args: argparse.Namespace) -> Iterator[Case]:
    job = Job(task=task, mapped=True, map_seeds=args.seeds)
    wish, device = ModelChoice(engine=args.engine, offline=True), DeviceChoice(device=args.device)
    pipeline = EnginePipeline.load(settle_choice(wish, device, job), device)
    for index, truth in enumerate(truths):
        for scale in scales:
            for kind in SPOILS:
                if (small := spoil(truth, scale, kind, index)) is not None:
                    yield run_case(
                        pipeline, replace(job, size=TargetSize(scale=scale)), Picture(pixels=small), truth, index
                    )


def run_case(pipeline: EnginePipeline, job: Job, picture: Picture, truth: Pixels, index: int) -> Case:
    result = pipeline.run(picture, job)
    whole = slice(0, result.height)
    spread = measure_spread(pipeline, picture, job, result, lambda stage, done, total: None).around(whole)
    added = measure_added(picture.pixels, result.pixels, whole)
    wrong = measure_error(result.pixels, truth) > ERROR_LEVELS
    inner = (slice(BORDER, -BORDER),) * 2
    planes = [plane[inner].ravel() for plane in (spread, added, wrong)]
    chosen = np.random.default_rng(index).integers(0, planes[0].size, SAMPLED)
    scale = round(job.factor(picture.width, picture.height))
    return Case(index, scale, planes[0][chosen], planes[1][chosen], planes[2][chosen])


def fit_calibration(cases: Sequence[Case]) -> Calibration:
    """Maximum likelihood by Newton's method."""
    spread, added, wrong = (np.concatenate([getattr(c, n) for c in cases]) for n in ("spread", "added", "wrong"))
    features = np.stack([np.ones_like(spread), log_levels(spread), log_levels(added)], 1).astype(np.float64)
    weights = np.zeros(3)
    for _ in range(30):
        p = 1 / (1 + np.exp(-features @ weights))
        hessian = (features * (p * (1 - p))[:, None]).T @ features
        weights += np.linalg.solve(hessian + 1e-6 * np.eye(3), features.T @ (wrong - p))
    offset, by_spread, by_added = (round(float(w), 3) for w in weights)
    return Calibration(offset, by_spread, by_added)


def rank_share(told: Values, wrong: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: how often a wrong place has a higher value than a right one."""
    ranks = np.empty(len(told))
    ranks[told.argsort(kind="stable")] = np.arange(len(told))
    ones, zeros = int(wrong.sum()), int((~wrong).sum())
    return float((ranks[wrong].sum() - ones * (ones - 1) / 2) / (ones * zeros)) if ones and zeros else float("nan")


def reliability(told: Values, wrong: NDArray[np.bool_]) -> list[tuple[float, float, float]]:
    """For each tenth of the scale: the mean value, how often it was wrong there, and the share of all places."""
    bins = np.minimum((told * BINS).astype(int), BINS - 1)
    rows = ((told[bins == b], wrong[bins == b]) for b in range(BINS))
    return [(float(t.mean()), float(w.mean()), len(t) / len(told)) for t, w in rows if len(t) > 50]


def calibration_error(points: list[tuple[float, float, float]]) -> float:
    return sum(abs(told - found) * share for told, found, share in points)


def draw_reliability(curves: dict[str, list[tuple[float, float, float]]], file: Path) -> None:
    """What the map says across, what was found upwards; on the diagonal both agree."""
    side, left, top = 560, 80, 30
    image = Image.new("RGB", (side + left + 30, side + top + 70), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(16)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x * side, top + (1 - y) * side

    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        pen.line([at(tick, 0), at(tick, 1)], "#e5e5e5")
        pen.line([at(0, tick), at(1, tick)], "#e5e5e5")
        pen.text((at(tick, 0)[0], top + side + 12), f"{tick:g}", "black", font, "mt")
        pen.text((left - 10, at(0, tick)[1]), f"{tick:g}", "black", font, "rm")
    pen.line([at(0, 0), at(1, 1)], "#999999", 2)
    for row, (colour, (name, points)) in enumerate(zip(COLOURS, curves.items(), strict=False)):
        pen.line([at(told, found) for told, found, _ in points], colour, 3, "curve")
        for told, found, _ in points:
            x, y = at(told, found)
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), colour)
        pen.text((left + 16, top + 14 + 22 * row), name, colour, font)
    pen.text((left + side / 2, top + side + 55), "what the map says", "black", font, "mm")
    pen.text((8, 6), "share of places that are wrong", "black", font)
    image.save(file)


def judge(task: Task, cases: list[Case], curves: dict[str, list[tuple[float, float, float]]]) -> Iterator[str]:
    """Fit to the even pictures, look at the odd ones."""
    found = fit_calibration([case for case in cases if case.picture % 2 == 0])
    yield f"{task.name}: {found}"
    yield "\n| scale | wrong places | AUC | calibration error | as draws |\n|---|---|---|---|---|"
    for scale in sorted({case.scale for case in cases}):
        some = [case for case in cases if case.picture % 2 and case.scale == scale]
        spread, added, wrong = (np.concatenate([getattr(c, n) for c in some]) for n in ("spread", "added", "wrong"))
        told = found.find_probability(spread, added)
        points = reliability(told, wrong)
        curves[f"{task.name} x{scale}" if scale > 1 else task.name] = points
        drawn = calibration_error(reliability(exceed_as_draws(spread), wrong))
        figures = f"{rank_share(told, wrong):.3f} | {calibration_error(points):.3f} | {drawn:.3f}"
        yield f"| {scale} | {wrong.mean():.3f} | {figures} |"


def sample_pictures(side: int) -> list[Pixels]:
    """Three of scikit-image's, which nothing was trained on."""
    import skimage.data

    pictures = (np.asarray(getattr(skimage.data, name)()) for name in ("astronaut", "coffee", "chelsea"))
    return [cut_middle(picture, side) for picture in pictures]


def main() -> int:
    parser = argparse.ArgumentParser(description="Calibrate the map of uncertainty.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/map"))
    parser.add_argument("--engine", default="builtin")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--seeds", type=int)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    truths = [*read_pictures(args.folder, True, args.side), *sample_pictures(args.side)]
    truths = [cut_middle(t, min(t.shape[:2]) // 16 * 16) for t in truths if min(t.shape[:2]) >= 160]
    curves: dict[str, list[tuple[float, float, float]]] = {}
    lines = [f"{len(truths)} pictures of {args.side}x{args.side} at most"]
    for task, scales in ((UPSCALE, SCALES), (RESTORE, (1,))):
        lines += ["", *judge(task, list(find_cases(truths, task, scales, args)), curves)]
    draw_reliability(curves, args.out / "map-reliability.png")
    text = "\n".join(lines)
    (args.out / "map.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
