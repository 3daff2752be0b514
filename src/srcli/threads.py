"""How many CPU threads to compute with, from the environment, the processor and the control group."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

UNLIMITED = 1 << 16
CGROUP_ROOT = Path("sys/fs/cgroup")


def default_threads(physical: int | None = None) -> int:
    """OMP_NUM_THREADS, else the physical cores that this process may use.

    More threads, on hyperthreads or on cores of other processes, only slow it down.
    """
    if asked := threads_asked_for(os.environ):
        return asked
    cores = physical or os.cpu_count() or 1
    return max(1, min(cores, count_usable_cores(), cgroup_cores()))


def count_usable_cores() -> int:
    """Cores, hyperthreads included, that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_asked_for(environ: Mapping[str, str]) -> int | None:
    """The number in OMP_NUM_THREADS: the first, where it lists one for each level of nesting."""
    found = re.match(r"\s*(\d{1,4})\s*(?:,|$)", environ.get("OMP_NUM_THREADS", ""))
    return int(found[1]) or None if found else None


def sleep_when_idle() -> None:
    """Make OpenMP's threads sleep while they have no work; spinning, they would take cores from other processes.

    Call it before torch is imported: the OpenMP library reads the setting once.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def cgroup_cores(root: Path = Path("/")) -> int:
    """Cores allowed by the control group and its parents, rounded down; UNLIMITED if none sets a limit."""
    limits = (_read_limit(folder) for folder in _find_groups(root))
    return max(1, int(min((cores for cores in limits if cores is not None), default=UNLIMITED)))


def _find_groups(root: Path) -> Iterator[Path]:
    """The folders of this process's control group, in cgroup version 1 or 2, and of its parents."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    # In a container the process's own group may be mounted as the root.
    yield from (root / CGROUP_ROOT, root / CGROUP_ROOT / "cpu")
    for line in lines:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / CGROUP_ROOT / ("cpu" if controllers else "")
        own = PurePosixPath(path.lstrip("/"))
        yield from (top / folder for folder in (own, *own.parents))


def _read_limit(group: Path) -> float | None:
    """Cores that one group may use; None if it sets no limit."""
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
        except (OSError, ValueError):
            return None
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or -1 in the older form
        return None
    return cores if cores > 0 else None
