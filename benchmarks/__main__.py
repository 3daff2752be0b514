"""Run all measurements on this machine, into benchmarks/results/cpu.md and cpu.json. `make bench` runs this.

The exit code is 1 if a part fails; the results of the others are written.

python -m benchmarks [--only NAME ...] [--small] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.tables import table

Part = tuple[str, list[str]]  # a program, and its arguments
TINY = ["--tiny", "--process-size", "96", "--tile", "8", "--scale", "1", "--engine"]
# In the order of the report. Together about ten minutes of processor time, and less by the clock.
PARTS: Sequence[Part] = (
    ("layout", []),
    ("savings", ["--side", "384"]),
    ("vae", ["--side", "384"]),
    ("vae", ["--side", "2048", "--divide", "4", "--ways", "untiled", "bands", "bands, maps on disk"]),
    ("drift", []),
    ("drift", [*TINY, "pasd"]),
    ("drift", [*TINY, "stablesr"]),
    ("memory", ["--most", "2048"]),
    ("pages", []),
    ("builtin", ["--sizes", "128x128", "256x256", "512x512"]),
    ("startup", []),
)
SMALL: Sequence[Part] = (
    ("layout", []),
    ("savings", ["--side", "64", "--small"]),
    ("vae", ["--side", "128", "--divide", "4"]),
    ("drift", ["--scale", "1"]),
    ("drift", [*TINY, "pasd"]),
    ("memory", ["--sides", "256"]),
    ("pages", ["--side", "256"]),
    ("builtin", ["--sizes", "32x32"]),
    ("startup", ["--times", "1"]),
)


def machine() -> str:
    """What was measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    has = [flag for flag in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(flag)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return ", ".join([name, *has, f"{cores} processors, {memory:.0f} GiB", platform.system(), versions])


def run(part: str, arguments: Sequence[str], patience: float) -> tuple[str, str]:
    """The Markdown of a program, and the error if it failed."""
    command = [sys.executable, "-m", f"benchmarks.{part}", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        return f"## {part}\n\nnot measured", f"it took longer than {patience:g} seconds"
    if done.returncode:
        return f"## {part}\n\nnot measured", done.stderr.strip() or f"exit code {done.returncode}"
    text = done.stdout.strip()
    return text if text.startswith("## ") else f"## {part}\n\n{text}", ""


def tables(text: str) -> list[dict[str, object]]:
    """The report's tables as data: heading, column names, rows."""
    found: list[dict[str, object]] = []
    heading, rows = "", []
    for line in [*text.splitlines(), ""]:
        if line.startswith("## "):
            heading = line[3:]
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            found.append({"title": heading, "columns": rows[0], "rows": rows[2:]})
            rows = []
    return found


def spent() -> float:
    """Processor seconds of all programs that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(parts: Sequence[Part], patience: float) -> tuple[str, list[str]]:
    """The text of the report, and the parts that failed."""
    texts, failed, rows = [], [], []
    for part, arguments in parts:
        name, clock, processor = " ".join([part, *arguments]), time.perf_counter(), spent()
        text, failure = run(part, arguments, patience)
        print(text + "\n", flush=True)
        if failure:
            failed.append(name)
            print(f"{name} failed: {failure}", file=sys.stderr, flush=True)
        texts.append(text)
        rows.append([name, f"{spent() - processor:.0f}", f"{time.perf_counter() - clock:.0f}"])
    rows.append(["all", f"{sum(int(row[1]) for row in rows)}", f"{sum(int(row[2]) for row in rows)}"])
    return "\n\n".join([*texts, "## This run\n\n" + table(["part", "processor s", "s"], rows)]), failed


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure this machine.")
    parser.add_argument("--only", nargs="+", choices=sorted({part for part, _ in PARTS}))
    parser.add_argument("--small", action="store_true", help="everything tiny, to try the programs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--patience", type=float, default=360, help="seconds that one part may take")
    args = parser.parse_args()
    parts = [part for part in (SMALL if args.small else PARTS) if not args.only or part[0] in args.only]
    body, failed = measure(parts, args.patience)
    head = f"# Measured\n\n{machine()}. {time.strftime('%Y-%m-%d', time.gmtime())}."
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "cpu.md").write_text(f"{head}\n\n{body}\n", encoding="utf-8")
    data = {"machine": machine(), "failed": failed, "tables": tables(body)}
    (args.out / "cpu.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if failed:
        sys.exit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
