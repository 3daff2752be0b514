"""The tiny SR3 networks of a golden folder, and the schedules that its notes write out."""

import json
import re
from functools import cache

import torch
from safetensors.torch import load_file
from tests.golden.cases import ROOT, Case
from torch import Tensor

from srcli.models.sr3_unet import SR3Shape, SR3UNet, extract_network_state
from srcli.sampling.ancestral import make_betas

FOLDER = ROOT / "sr3" / "tiny"
WRITTEN = re.compile(r"(\w+) T=(\d+) ([\d.e+-]+?)\.\.([\d.e+-]+)")


def model_of(case: Case) -> str:
    """The tiny model that the case's name ends in."""
    known = [path.name.removesuffix("_tiny.safetensors") for path in FOLDER.glob("*_tiny.safetensors")]
    return max((name for name in known if case.name.endswith(f"_{name}")), key=len)


@cache
@torch.inference_mode(False)  # whoever asks first, the weights can be trained
def network(name: str) -> SR3UNet:
    config = json.loads((FOLDER / f"{name}_tiny_config.json").read_text())
    unet = SR3UNet(SR3Shape.from_config(config["model"])).eval().requires_grad_(False)
    unet.load_state_dict(extract_network_state(load_file(FOLDER / f"{name}_tiny.safetensors")))
    return unet


def schedule(text: str) -> Tensor:
    """The betas that a note like "linear T=10 1e-4..0.3" describes."""
    kind, steps, start, end = WRITTEN.search(text).groups()
    return make_betas(kind, int(steps), float(start), float(end))


def condition(case: Case, key: str = "cond_u8") -> Tensor | None:
    """The condition in -1..1; an unconditional case has none."""
    return case.tensors[key].float() / 255 * 2 - 1 if key in case.tensors else None


def joined(cond: Tensor | None, x: Tensor) -> Tensor:
    return x if cond is None else torch.cat([cond, x], dim=1)
