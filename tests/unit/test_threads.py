"""Threads: what the environment asks for, what the control group grants, and no spinning beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from srcli.engines.runtime.device import choose_device, prepare_process
from srcli.settings import DeviceChoice
from srcli.threads import UNLIMITED, cgroup_cores, default_threads, threads_asked_for


@pytest.mark.parametrize(
    ("given", "threads"),
    [("3", 3), (" 3 ", 3), ("4,2", 4), ("0", None), ("", None), ("-1", None), ("many", None), ("3x", None)],
)
def test_the_environment_is_read_as_openmp_reads_it(given: str, threads: int | None) -> None:
    assert threads_asked_for({"OMP_NUM_THREADS": given}) == threads


def test_the_environment_goes_before_the_cores_and_the_option_before_both(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    try:
        assert default_threads(64) == 3
        device = choose_device(DeviceChoice(device="cpu"))
        prepare_process(device)
        assert torch.get_num_threads() == 3
        prepare_process(device, threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


FILES = {
    "the root of version 2": ({"cpu.max": "150000 100000"}, "0::/", 1),
    "a group of version 2": ({"a/b/cpu.max": "400000 100000"}, "0::/a/b", 4),
    "a group above": ({"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b", 2),
    "less than one core": ({"cpu.max": "50000 100000"}, "0::/", 1),
    "no limit": ({"cpu.max": "max 100000"}, "0::/", UNLIMITED),
    "version 1": ({"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/a", 3),
    "version 1 without limit": (
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        "4:cpu:/",
        UNLIMITED,
    ),
    "another controller": ({"cpu/a/cpu.cfs_quota_us": "1", "cpu/a/cpu.cfs_period_us": "1"}, "4:pids:/a", UNLIMITED),
    "nonsense": ({"cpu.max": "x y z"}, "nonsense", UNLIMITED),
    "nothing": ({}, None, UNLIMITED),
}


@pytest.mark.parametrize("row", FILES)
def test_the_control_groups_quota_is_found(row: str, tmp_path: Path) -> None:
    files, group, cores = FILES[row]
    given = {f"sys/fs/cgroup/{path}": text for path, text in files.items()}
    for path, text in (given | ({"proc/self/cgroup": group + "\n"} if group else {})).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert cgroup_cores(tmp_path) == cores


@pytest.mark.parametrize(("given", "policy"), [(None, "passive"), ("active", "active")])
def test_idle_threads_sleep_unless_the_user_wants_otherwise(given: str | None, policy: str) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    code = (
        "import atexit, os, srcli.cli; atexit.register(lambda: print(os.environ['OMP_WAIT_POLICY'])); srcli.cli.main()"
    )
    environ |= {"OMP_WAIT_POLICY": given} if given else {}
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == policy
