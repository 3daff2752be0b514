"""Effect of the tuned allocator on the built-in engine: CPU time and peak memory, with and without `tune_allocator`.

From pixels to a written TIFF, as benchmarks.memory does it.

python -m benchmarks.pages [--side 3072] [--dtype float32]
"""

from __future__ import annotations

import argparse
import json

from benchmarks.memory import measure
from benchmarks.tables import MIB, run_in_process, table
from srcli.engines.runtime import device


def main() -> None:
    parser = argparse.ArgumentParser(description="Effect of the tuned allocator.")
    parser.add_argument("--side", type=int, default=3072)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--one", choices=["on", "off"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        if args.one == "off":
            device.tune_allocator = lambda: None
        print(json.dumps(measure("builtin", args.side, args.dtype)))
        return
    rows = []
    for way in ("off", "on"):
        found = run_in_process("benchmarks.pages", "--side", args.side, "--dtype", args.dtype, "--one", way)
        rows.append([way, f"{found['seconds']:.1f}", f"{found['peak'] / MIB:,.0f}"])
    print(f"## Tuned allocator: the built-in engine to {args.side}x{args.side} in {args.dtype}\n")
    print(table(["tuned", "processor s", "peak, MiB"], rows))


if __name__ == "__main__":
    main()
