"""Speed and memory of the built-in engine, and the ratio to a Lanczos resize.

python benchmarks/builtin.py [--threads N] [--sizes 512x512 ...]

Every size runs in a fresh process, so that its peak memory is its own. 4000x3000 takes many minutes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

SIZES = ("128x128", "256x256", "512x512", "1024x768")


def once(width: int, height: int, threads: int | None) -> dict[str, float]:
    """Time a picture of noise and edges after a warm-up on a small one."""
    began = time.perf_counter()
    import numpy as np
    from PIL import Image

    from srcli.imaging.picture import Picture
    from srcli.pipeline import EnginePipeline
    from srcli.settings import DeviceChoice, ModelChoice
    from srcli.tasks import UPSCALE, Job

    pipeline = EnginePipeline.load(ModelChoice(engine="builtin"), DeviceChoice(device="cpu", threads=threads))
    loaded = time.perf_counter() - began
    y, x = np.mgrid[:height, :width]
    grey = (((x // 9 + y // 13) % 2) * 120 + np.random.default_rng(0).integers(0, 60, (height, width))).astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=2)
    job = Job(task=UPSCALE)
    pipeline.run(Picture(pixels=pixels[:32, :32]), job)
    began = time.perf_counter()
    pipeline.run(Picture(pixels=pixels), job)
    took = time.perf_counter() - began
    began = time.perf_counter()
    Image.fromarray(pixels).resize((4 * width, 4 * height), Image.Resampling.LANCZOS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"load": loaded, "run": took, "lanczos": time.perf_counter() - began, "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the built-in engine.")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--once", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        print(json.dumps(once(*args.once, args.threads)))
        return
    print(f"{os.cpu_count()} processors, threads: {args.threads or 'auto'}")
    print("| picture | result | start-up s | seconds | times Lanczos | peak MB |\n|---|---|---|---|---|---|")
    for width, height in (map(int, size.split("x")) for size in args.sizes):
        again = [sys.executable, __file__, "--once", str(width), str(height)]
        again += ["--threads", str(args.threads)] if args.threads else []
        run = json.loads(subprocess.run(again, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        ratio = run["run"] / run["lanczos"]
        print(
            f"| {width}x{height} | {4 * width}x{4 * height} | {run['load']:.1f} | {run['run']:.2f} "
            f"| {ratio:.0f} | {run['peak']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
