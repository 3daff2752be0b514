"""What the measurements share: Markdown tables, clocks, and the memory of a process."""

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
    """The least processor time that `work` took, over all threads: other processes do not count in it."""
    best = float("inf")
    for _ in range(times):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def turns(works: Sequence[Callable[[], object]], times: int) -> list[float]:
    """The least processor time of each, taken by turns, so that all meet the same weather."""
    best = [float("inf")] * len(works)
    for _ in range(times):
        for index, work in enumerate(works):
            best[index] = min(best[index], seconds(work))
    return best


def peak() -> int:
    """Bytes that this process held in memory at its largest."""
    if STATUS.exists():  # what the system says to `getrusage` begins with what the process's parent held
        return 1024 * int(STATUS.read_text().split("VmHWM:")[1].split()[0])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def apart(module: str, *arguments: object) -> dict[str, float]:
    """What `module` says (one JSON object on stdout) when it runs in a process of its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])} ended with {done.returncode}")
    found: dict[str, float] = json.loads(done.stdout)
    return found
