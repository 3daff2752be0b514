"""What `srcli doctor` reads of the machine."""

from __future__ import annotations

import pytest

from srcli.cli import machine


def test_memory_that_makes_way_is_available(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       8388608 kB\nMemFree:         1048576 kB\nMemAvailable:    4194304 kB\n")
    monkeypatch.setattr(machine, "MEMINFO", meminfo)
    assert machine.read_memory() == {"total": "8.0 GiB", "available": "4.0 GiB"}


def test_the_processor_is_called_as_its_system_calls_it(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: A Processor 9000\n")
    monkeypatch.setattr(machine, "CPUINFO", cpuinfo)
    assert machine.describe_processor().startswith("A Processor 9000, ")


def test_a_system_without_proc_is_described_too(tmp_path, monkeypatch):
    for name in ("MEMINFO", "CPUINFO"):
        monkeypatch.setattr(machine, name, tmp_path / "missing")
    assert machine.describe_processor()
    assert machine.read_memory()["total"].endswith("GiB")


@pytest.mark.parametrize(
    ("cuda", "hip", "said"),
    [(None, None, "a build for the CPU"), ("13.0", None, "CUDA 13.0"), (None, "7.2", "ROCm 7.2")],
)
def test_the_build_of_pytorch_says_why_there_is_no_gpu(cuda, hip, said):
    assert said in machine.explain_missing_gpu("2.13.0", cuda, hip)


def test_a_folder_that_takes_no_file_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path / "missing"))
    assert machine.try_writing()["temporary files"].endswith("no (No such file or directory)")
