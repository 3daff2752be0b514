"""What large pages, given back at once, are worth to the built-in engine: processor time and peak, on and off.

From pixels to a written TIFF, as benchmarks.memory does it.

python -m benchmarks.pages [--side 3072] [--dtype float32]
"""

from __future__ import annotations

import argparse
import json

from benchmarks.memory import measure
from benchmarks.tables import MIB, apart, table
from srcli.engines.runtime import device


def main() -> None:
    parser = argparse.ArgumentParser(description="What large pages are worth.")
    parser.add_argument("--side", type=int, default=3072)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--one", choices=["on", "off"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        if given.one == "off":
            device.tune_allocator = lambda: None
        print(json.dumps(measure("builtin", given.side, given.dtype)))
        return
    rows = []
    for way in ("off", "on"):
        found = apart("benchmarks.pages", "--side", given.side, "--dtype", given.dtype, "--one", way)
        rows.append([way, f"{found['seconds']:.1f}", f"{found['peak'] / MIB:,.0f}"])
    print(f"## Large pages, given back at once: the built-in engine to {given.side}x{given.side} in {given.dtype}\n")
    print(table(["they are", "processor s", "peak, MiB"], rows))


if __name__ == "__main__":
    main()
