"""Shared by the measurements: Markdown tables, clocks, and the memory of a process."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

MIB = 1 << 20
STATUS = Path("/proc/self/status")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """The least processor time of `work`, summed over all threads; other processes do not count."""
    best = float("inf")
    for _ in range(times):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def measure_in_turns(works: Sequence[Callable[[], object]], times: int) -> list[float]:
    """The least processor time of each, measured alternately, so that the machine's load affects all alike."""
    best = [float("inf")] * len(works)
    for _ in range(times):
        for index, work in enumerate(works):
            best[index] = min(best[index], seconds(work))
    return best


def peak() -> int:
    """Peak memory of this process in bytes."""
    if STATUS.exists():  # `getrusage` includes the parent's memory before exec
        return 1024 * int(STATUS.read_text().split("VmHWM:")[1].split()[0])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def run_in_process(module: str, *arguments: object) -> dict[str, float]:
    """Run `module` in its own process; returns the JSON object that it prints."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])} ended with {done.returncode}")
    found: dict[str, float] = json.loads(done.stdout)
    return found
