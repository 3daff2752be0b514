"""All measurements of this machine, into benchmarks/results/cpu.md and cpu.json. `make bench` runs this.

python -m benchmarks [--only NAME ...] [--small]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
# Programs with their arguments, in the order of the report.
PARTS: dict[str, list[list[str]]] = {
    "layout": [[]],
    "savings": [[]],
    "vae": [["--side", "512"], ["--side", "1024", "--divide", "4"]],
    "drift": [[]],
    "memory": [["--sides", "1024", "2048"]],
    "builtin": [[]],
    "startup": [[]],
}


def machine() -> str:
    """What was measured on."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    cores = len(os.sched_getaffinity(0))
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{name}, {cores} processors, {platform.system()}, {versions}"


def run(part: str, arguments: list[str], patience: float) -> str:
    """A program's Markdown, or why there is none."""
    command = [sys.executable, "-m", f"benchmarks.{part}", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        return f"## {part}\n\nnot measured: it took longer than {patience:g} seconds"
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"## {part}\n\nnot measured: {reason}"
    text = done.stdout.strip()
    return text if text.startswith("## ") else f"## {part}\n\n{text}"


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


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure this machine.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--patience", type=float, default=360, help="seconds that one part may take")
    given = parser.parse_args()
    began, texts = time.perf_counter(), []
    for part in given.only:
        for arguments in PARTS[part]:
            texts.append(run(part, arguments, given.patience))
            print(texts[-1] + "\n", flush=True)
    spent = time.perf_counter() - began
    head = f"# Measured\n\n{machine()}. {time.strftime('%Y-%m-%d', time.gmtime())}, {spent:.0f} seconds in all."
    body = "\n\n".join([head, *texts]) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cpu.md").write_text(body, encoding="utf-8")
    data = {"machine": machine(), "seconds": round(spent), "tables": tables(body)}
    (RESULTS / "cpu.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
