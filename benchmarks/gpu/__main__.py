"""Measure on an accelerator: first correctness, then speed. Random weights, golden vectors, no network access.

Sections run in order of importance, each for a limited time; gpu.json and gpu.md are written after every row.
--small tests the program with small networks, also on a CPU. The exit code is 1 if a row failed.

python -m benchmarks.gpu [--out FOLDER] [--golden FOLDER] [--budget SECONDS] [--small] [--only SECTION ...]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.gpu import golden, runs, shortage, steps, whole
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.report import Report, Section
from srcli.engines.runtime.device import choose_device, list_devices, prepare_process
from srcli.settings import DeviceChoice
from srcli.weights.open import silence_libraries

BUDGET = 480.0
COMPILED = "compiled"  # not with small networks: the tests of `--compile` cover it
# Limits in seconds. Their sum is above the budget, since most sections need less.
SECTIONS = {
    "golden": Section(golden.rows, golden.COLUMNS, 60),
    "runs": Section(runs.rows, runs.COLUMNS, 90),
    "shortage": Section(shortage.rows, shortage.COLUMNS, 60),
    "eager": Section(steps.eager, steps.WAY, 60),
    "whole": Section(whole.rows, whole.COLUMNS, 120),
    "sweep": Section(steps.sweep, steps.SWEEP, 60),
    "vae": Section(steps.vae, steps.VAE, 40),
    COMPILED: Section(steps.compiled, steps.WAY, 240),
}


@torch.inference_mode()
def visit(report: Report, bench: Bench, names: list[str], budget: float, clock: Callable[[], float]) -> None:
    """Run these sections until the budget is spent."""
    began = clock()
    for name in names:
        left = budget - (clock() - began)
        if left <= 0:
            report.sections[name] = {"columns": ["not begun"], "rows": [], "ended": "no time was left", "seconds": 0.0}
            continue
        report.run(name, SECTIONS[name], bench, min(left, SECTIONS[name].limit))
        gc.collect()
        if bench.device.torch.type == "cuda":
            torch.cuda.empty_cache()
    report.write()


def main() -> None:
    parser = argparse.ArgumentParser(description="Proof and figures from an accelerator.")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--golden", type=Path, default=Path("tests/golden"), help="the folder of golden vectors")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds in all")
    parser.add_argument("--small", action="store_true", help="small networks, to try the program")
    parser.add_argument("--only", nargs="+", choices=SECTIONS)
    args = parser.parse_args()
    names = args.only or [name for name in SECTIONS if not (args.small and name == COMPILED)]
    name = list_devices()[0]
    if name == "cpu" and not args.small:
        sys.exit("no accelerator here: run this where there is one, or try it with --small")
    silence_libraries()
    # One thread for small networks on a CPU, where more would only wait for each other.
    device = choose_device(DeviceChoice(device=name, dtype="float32"))
    prepare_process(device, 1 if name == "cpu" else None)
    report = Report(args.out, device.torch, "srcli on an accelerator" + (", small networks" if args.small else ""))
    with TemporaryDirectory() as cache:  # empty, so that compiling starts anew
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        visit(report, Bench(device, args.golden, args.small), names, args.budget, time.perf_counter)
    print("\n" + report.text())
    if report.errors:
        sys.exit(f"{len(report.errors)} rows failed: see {args.out / 'gpu.json'}")


if __name__ == "__main__":
    main()
