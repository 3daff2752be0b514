"""Base models and photographs of a few kilobytes, as folders that commands can be pointed at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

GOLDEN = Path(__file__).parent / "golden"


def sd15_base(folder: Path) -> Path:
    """The golden tiny base, whose files a test may change."""
    shutil.copytree(GOLDEN / "pasd" / "tiny" / "base", folder)
    return folder


def photographs(folder: Path, count: int = 4, side: int = 96) -> Path:
    """Pictures of smooth shapes and edges, each another one."""
    folder.mkdir()
    y, x = np.mgrid[:side, :side] / side
    for index in range(count):
        rng = np.random.default_rng(index)
        waves = [np.sin(rng.uniform(3, 20) * (x * np.cos(a) + y * np.sin(a)) + a) for a in rng.uniform(0, 6, 3)]
        levels = np.stack([127 + 100 * wave for wave in waves], -1)
        levels[(x - rng.random()) ** 2 + (y - rng.random()) ** 2 < 0.05] = rng.integers(0, 256, 3)
        Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(folder / f"{index:02d}.png")
    return folder


def read_log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


SR3_CONFIG = {
    "model": {
        "which_model_G": "sr3",
        "unet": {
            "in_channel": 6,
            "out_channel": 3,
            "inner_channel": 16,
            "norm_groups": 8,
            "channel_multiplier": [1, 2],
            "attn_res": [],
            "res_blocks": 1,
            "dropout": 0.1,
        },
        "diffusion": {"image_size": 32},
        "beta_schedule": {"train": {"schedule": "linear", "n_timestep": 100, "linear_start": 1e-6, "linear_end": 1e-2}},
    },
    "datasets": {"train": {"l_resolution": 8, "r_resolution": 32}},
}


def sr3_config(path: Path, dropout: float = 0.1) -> Path:
    """A tiny SR3 in the official words."""
    config = json.loads(json.dumps(SR3_CONFIG))
    config["model"]["unet"]["dropout"] = dropout
    path.write_text(json.dumps(config))
    return path


def lpips_file(path: Path) -> Path:
    """The golden stand-in for LPIPS."""
    with safe_open(GOLDEN / "stablesr_training" / "c01_pieces.safetensors", "pt") as held:
        names = [name for name in held.keys() if name.startswith("lpips.")]  # noqa: SIM118 (not a mapping)
        save_file({name.removeprefix("lpips."): held.get_tensor(name) for name in names}, path)
    return path
