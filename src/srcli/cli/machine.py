"""What the system tells of this machine: processor, memory, graphics, and where files can be written."""

from __future__ import annotations

import platform
import re
import subprocess
import tempfile
from pathlib import Path

from srcli.memory import GIB, measure_memory
from srcli.threads import count_usable_cores

MEMINFO = Path("/proc/meminfo")
CPUINFO = Path("/proc/cpuinfo")


def describe_processor() -> str:
    """The processor's model and how many of its cores may be used."""
    return f"{_read_model()}, {count_usable_cores()} cores"


def _read_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _read_text(CPUINFO), re.MULTILINE)
    if found:
        return found[1]
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def read_memory() -> dict[str, str]:
    """Total memory, and the memory available to programs: free memory, and caches that can be dropped."""
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
    """Whether files can be written to the current folder and to the folder of temporary files."""
    return {"this folder": _try_folder(Path.cwd()), "temporary files": _try_folder(Path(tempfile.gettempdir()))}


def _try_folder(folder: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"a result")
            file.flush()
    except OSError as error:
        return f"{folder}: no ({error.strerror})"
    return f"{folder}: yes"
