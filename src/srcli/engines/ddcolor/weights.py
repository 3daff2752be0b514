"""Load DDColor's network from the official weights as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from srcli.engines.ddcolor.spec import ARTISTIC_VARIANT, LARGE_VARIANT, TINY_VARIANT, ddcolor_entry
from srcli.errors import WeightsError
from srcli.models.ddcolor import LARGE_SHAPE, TINY_SHAPE, DDColor, Shape, convert_official
from srcli.settings import ModelChoice
from srcli.weights.open import load_into, load_state
from srcli.weights.store import Store

SHAPES = {TINY_VARIANT: TINY_SHAPE, LARGE_VARIANT: LARGE_SHAPE, ARTISTIC_VARIANT: LARGE_SHAPE}


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network and its provenance."""

    network: DDColor
    weights_used: Mapping[str, str]


def open_network(choice: ModelChoice, store: Store) -> LoadedNetwork:
    """Load the chosen variant or adapter file; WeightsError if the file is not of the named variant."""
    located = store.resolve(
        choice.adapter or ddcolor_entry(choice.variant), "adapter", allow_pickle=choice.allow_pickle
    )
    network = read_network(located.only_file())
    if choice.variant is not None and network.shape != SHAPES[choice.variant]:
        widths = ", ".join(map(str, network.shape.widths))
        remedy = f"leave out `variant` {choice.variant}, or give its file"
        raise WeightsError(f"{located.only_file()}: this is a DDColor of widths {widths}: {remedy}")
    return LoadedNetwork(network, located.provenance())


def read_network(path: Path) -> DDColor:
    """Load a network, in fp32. Every tensor must be used by it or known to be unused."""
    state = load_state(path)
    network = build_ddcolor(read_ddcolor_shape(state, path))
    exact = {name: x.float() if x.is_floating_point() else x for name, x in convert_official(state).items()}
    load_into(network, exact, path)
    return network.requires_grad_(False).eval()


def build_ddcolor(shape: Shape) -> DDColor:
    with torch.device("meta"):
        return DDColor(shape)


def read_ddcolor_shape(state: Mapping[str, Tensor], path: Path) -> Shape:
    try:
        return Shape.from_state(state)
    except (KeyError, IndexError) as error:
        raise WeightsError(f"{path}: holds no DDColor network ({error}): choose another file") from error
