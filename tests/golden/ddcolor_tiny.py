"""The tiny DDColor that the golden vectors were made with."""

from __future__ import annotations

from functools import cache

from tests.golden.cases import ROOT
from torch import Tensor

from srcli.engines.ddcolor.weights import read_network
from srcli.models.ddcolor import DDColor
from srcli.weights.open import load_state

MODEL = ROOT / "ddcolor" / "tiny" / "model.safetensors"


@cache
def network() -> DDColor:
    return read_network(MODEL)


def state() -> dict[str, Tensor]:
    return load_state(MODEL)
