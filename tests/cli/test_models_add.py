"""`srcli models add` refuses what it can tell beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tests.cli.conftest import Srcli

from srcli.weights.places import find_places


def test_an_unknown_kind_lists_the_kinds(srcli: Srcli, tmp_path: Path) -> None:
    result = srcli("models", "add", "own", tmp_path, "--kind", "adpter")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert all(kind in result.stderr for kind in ("adapter", "base", "lora", "vae", "captioner"))


def test_a_file_that_is_no_model_is_not_taken_for_a_base_model(srcli: Srcli, tmp_path: Path) -> None:
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "own.safetensors")
    result = srcli("models", "add", "own", tmp_path / "own.safetensors")
    assert (result.exit_code, "no base model that srcli knows" in result.stderr) == (4, True)
    assert not find_places().overlay.exists()


def test_an_adapter_without_networks_is_refused(srcli: Srcli, tmp_path: Path) -> None:
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "own.safetensors")
    result = srcli("models", "add", "own", tmp_path / "own.safetensors", "--kind", "adapter")
    assert (result.exit_code, "holds no adapter of any engine" in result.stderr) == (4, True)
    assert not find_places().overlay.exists()
