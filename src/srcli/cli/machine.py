"""What this machine is made of, as far as its system tells: processor, memory, graphics, and where can be written."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tempfile
from pathlib import Path

from srcli.memory import GIB, measure_memory

MEMINFO = Path("/proc/meminfo")
CPUINFO = Path("/proc/cpuinfo")


def describe_processor() -> str:
    """The processor's model and how many of its cores may be used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_read_model()}, {cores} cores"


def _read_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _read_text(CPUINFO), re.MULTILINE)
    if found:
        return found[1]
    if platform.system() == "Darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def read_memory() -> dict[str, str]:
    """Bytes of memory in all, and those a program can get: free ones, and caches that make way."""
    rows = re.findall(r"^(\w+):\s+(\d+) kB$", _read_text(MEMINFO), re.MULTILINE)
    kilobytes = {name: int(size) for name, size in rows}
    names = {"total": "MemTotal", "available": "MemAvailable"}
    if kilobytes:
        return {name: f"{kilobytes[key] * 1024 / GIB:.1f} GiB" for name, key in names.items() if key in kilobytes}
    total = measure_memory()
    return {} if total is None else {"total": f"{total / GIB:.1f} GiB"}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # a system without /proc
        return ""


def explain_missing_gpu(version: str, cuda: str | None, hip: str | None) -> str:
    """Why no GPU is used, as far as the build of PyTorch tells."""
    if cuda is None and hip is None:
        return f"none; PyTorch {version} is a build for the CPU and would see none"
    return f"none that PyTorch {version}, a build for {f'CUDA {cuda}' if cuda else f'ROCm {hip}'}, can use"


def try_writing() -> dict[str, str]:
    """Whether files can be written where results and large pictures on their way go."""
    return {"this folder": _try_folder(Path.cwd()), "temporary files": _try_folder(Path(tempfile.gettempdir()))}


def _try_folder(folder: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"a result")
            file.flush()
    except OSError as error:
        return f"{folder}: no ({error.strerror})"
    return f"{folder}: yes"
