"""Reading weights in another precision takes the memory of the result, not that of the file besides."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import save_file

from srcli.weights.open import load_state

MIB = 1 << 20
PROGRAM = """
import sys, torch
from pathlib import Path
from benchmarks.tables import peak
from srcli.weights.open import load_state
load_state(Path(sys.argv[1]), names=["0"], dtype=torch.bfloat16)
before = peak()
state = load_state(Path(sys.argv[1]), dtype=getattr(torch, sys.argv[2]))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 200), ("float32", 360)])
def test_the_peak_is_that_of_the_result_and_one_tensor(dtype: str, most: int, tmp_path: Path) -> None:
    save_file({str(number): torch.ones(4 * MIB) for number in range(20)}, tmp_path / "x.safetensors")  # 320 MiB
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "x.safetensors"), dtype],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < most * MIB


def test_small_tensors_share_an_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each opening reads the whole header: one for each of a thousand tensors would take seconds."""
    save_file({str(number): torch.full((2,), float(number)) for number in range(100)}, tmp_path / "x.safetensors")
    real, opened = safetensors.safe_open, list[str]()
    monkeypatch.setattr(safetensors, "safe_open", lambda path, **more: opened.append(path) or real(path, **more))
    state = load_state(tmp_path / "x.safetensors", dtype=torch.bfloat16)
    assert {name: float(tensor[0]) for name, tensor in state.items()} == {str(n): float(n) for n in range(100)}
    assert len(opened) == 2


def test_floats_are_cast_integers_stay_and_each_tensor_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a.x": torch.arange(3.0), "a.y": torch.arange(3), "b.z": torch.ones(2).half()}, path)
    state = load_state(path, "a.", dtype=torch.bfloat16)
    assert {name: tensor.dtype for name, tensor in state.items()} == {"x": torch.bfloat16, "y": torch.int64}
    same = load_state(path, dtype=torch.float32)
    assert same["a.x"].equal(torch.arange(3.0)) and same["b.z"].dtype is torch.float32
    assert len({tensor.untyped_storage().data_ptr() for tensor in same.values()}) == 3
