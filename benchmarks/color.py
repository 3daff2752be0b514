"""CPU seconds of colorization and of scratch detection for a picture of 12 megapixels.

DDColor's tiny network and the scratch detector, of full size with random weights.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from srcli.engines.ddcolor.engine import DDColorEngine
from srcli.engines.runtime.device import Device
from srcli.imaging.picture import Picture
from srcli.models.ddcolor import TINY_SHAPE, DDColor
from srcli.models.scratch_detector import DetectorShape, ScratchDetector, fold_norms
from srcli.pipeline import EnginePipeline
from srcli.repair.find_damage import DamageFinder
from srcli.settings import ModelChoice, Repair
from srcli.tasks import COLORIZE, Job


def draw_picture(width: int, height: int) -> Picture:
    """Grey waves with a little grain."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = 128 + 90 * np.sin(x / 90) * np.cos(y / 70) + np.random.default_rng(0).normal(0, 4, x.shape)
    return Picture(pixels=np.repeat(waves.clip(0, 255).astype(np.uint8)[..., None], 3, 2), grey=True)


def measure_cpu(work: Callable[[], object]) -> float:
    """CPU seconds of the second call; the first packs weights and fills caches."""
    work()
    began = time.process_time()
    work()
    return time.process_time() - began


def make_finder(device: Device) -> DamageFinder:
    network = fold_norms(ScratchDetector(DetectorShape()).requires_grad_(False).eval()).to(device.dtype)
    network.to(memory_format=torch.channels_last)
    return DamageFinder(network, device, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--height", type=int, default=3000)
    args = parser.parse_args()
    device = Device(torch.device("cpu"), getattr(torch, args.dtype))
    network = DDColor(TINY_SHAPE).requires_grad_(False).eval().to(device.dtype)
    network.to(memory_format=torch.channels_last)
    pipeline = EnginePipeline(DDColorEngine(network, device, {}), device, ModelChoice(engine="ddcolor"))
    picture, job = draw_picture(args.width, args.height), Job(task=COLORIZE)
    print(f"{args.dtype}: {measure_cpu(lambda: pipeline.run(picture, job)):.1f} CPU s")
    strokes = np.zeros((288, 384, 4), np.uint8)
    strokes[100:110, 50:120] = (200, 60, 40, 255)
    with_strokes = replace(picture, strokes=strokes)
    print(f"with strokes over it: {measure_cpu(lambda: pipeline.run(with_strokes, job)):.1f} CPU s")
    finder = make_finder(device)
    print(f"scratches: {measure_cpu(lambda: finder.find(picture.pixels, Repair())):.1f} CPU s")
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
