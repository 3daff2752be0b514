"""Load SR3's network and noise schedule from a checkpoint and the official configuration file beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srcli.engines.sr3.spec import SR3_STEPS
from srcli.errors import WeightsError
from srcli.models.sr3_unet import SR3Shape, SR3UNet, build_sr3_unet, extract_network_state
from srcli.sampling.ancestral import make_betas
from srcli.weights.open import load_into, load_state
from srcli.weights.store import Store

# First and last beta of the published noise schedules.
BETA_ENDS = {"sr3": (1e-6, 1e-2), "ddpm": (1e-4, 2e-2)}
PUBLISHED_FACTOR = 8  # 16 -> 128 and 64 -> 512


@dataclass(frozen=True, slots=True)
class SR3Checkpoint:
    """A network with its noise schedule; `factor`: the enlargement of one pass."""

    unet: SR3UNet
    betas: Tensor
    factor: int
    weights_used: Mapping[str, str]


def open_checkpoint(name: str, store: Store, allow_pickle: bool = False) -> SR3Checkpoint:
    """Load a checkpoint: a file, or a name in weights.lock."""
    located = store.resolve(name, "adapter", allow_pickle=allow_pickle)
    path = located.only_file()
    state, config = load_state(path), read_config_beside(path if Path(name).is_dir() else Path(name))
    unet = build_sr3_network(path, state, config)
    betas = find_betas(config, state, unet.shape.variant)
    return SR3Checkpoint(unet, betas, read_factor(config), located.provenance())


def build_sr3_network(path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> SR3UNet:
    """Build the network from its configuration, or if there is none from the shapes of its weights."""
    own = extract_network_state(state)
    if "downs.0.weight" not in own:
        raise WeightsError(f"{path}: holds no SR3 network: choose an SR3 checkpoint")
    try:
        shape = SR3Shape.from_config(config["model"]) if config else SR3Shape.from_state(own)
        unet = build_sr3_unet(shape)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(f"{path}: its layout is not SR3's ({error}): choose an SR3 checkpoint") from error
    if shape.in_channel != 2 * shape.out_channel:
        raise WeightsError(
            f"{path}: is not a super-resolution network ({shape.in_channel} input channels): choose another checkpoint"
        )
    return load_into(unet, own, path)


def read_config_beside(path: Path) -> Mapping[str, Any]:
    """The official configuration, in NAME.json or NAME_config.json beside the checkpoint; empty if there is none."""
    for name in (f"{path.stem}.json", f"{path.stem}_config.json"):
        file = path.with_name(name)
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise WeightsError(f"{file}: not a configuration ({error}): correct it or move it away") from error
        if isinstance(config, dict) and isinstance(config.get("model"), dict):
            return config
    return {}


def find_betas(config: Mapping[str, Any], state: Mapping[str, Tensor], variant: str) -> Tensor:
    """The betas from the configuration, the checkpoint, or the published schedule; a linear one in full float64."""
    schedule = config.get("model", {}).get("beta_schedule", {}).get("val")
    if schedule:
        return make_betas(
            schedule["schedule"], schedule["n_timestep"], schedule["linear_start"], schedule["linear_end"]
        )
    stored = state.get("betas")
    if stored is None:
        return make_betas("linear", SR3_STEPS, *BETA_ENDS[variant])
    linear = make_betas("linear", len(stored), float(stored[0]), float(stored[-1]))
    return linear if torch.allclose(linear, stored.double(), rtol=1e-3) else stored.double()


def read_factor(config: Mapping[str, Any]) -> int:
    """The enlargement of one pass: that of the training pairs."""
    data = config.get("datasets", {}).get("train", {})
    small, large = data.get("l_resolution", 1), data.get("r_resolution", PUBLISHED_FACTOR)
    return max(2, int(large) // int(small))
