"""Read LoRA files with kohya's or diffusers' names, and merge them into weights.

Every pair must match a module of the right shape, or nothing is merged; diffusers would merge a part and log the rest.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from srcli.errors import WeightsError
from srcli.weights.open import load_state

DOWN_ENDINGS = (
    ".lora_down.weight",
    ".lora_A.weight",
    ".lora.down.weight",
    "_lora.down.weight",
    ".lora_linear_layer.down.weight",
)
UP_ENDINGS = (".lora_up.weight", ".lora_B.weight", ".lora.up.weight", "_lora.up.weight", ".lora_linear_layer.up.weight")
ALPHA_ENDINGS = (".alpha",)
UNET_PREFIXES = ("lora_unet_", "unet.", "base_model.model.", "diffusion_model.")
TEXT_PREFIXES = ("lora_te_", "lora_te1_", "text_encoder.")
VAE_PREFIXES = ("lora_vae_", "vae.")
PREFIXES = {"text_encoder": TEXT_PREFIXES, "vae": VAE_PREFIXES, "unet": UNET_PREFIXES}
TITLES = {"text_encoder": "text encoder", "vae": "VAE", "unet": "UNet"}
OPTIONAL = "text_model_"


@dataclass(frozen=True)
class LoraPair:
    """A low-rank change of one weight: `up @ down`, times alpha / rank if alpha is given."""

    down: Tensor
    up: Tensor
    alpha: float | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def delta(self, shape: torch.Size, use_alpha: bool = True) -> Tensor:
        """The change in fp32, in this shape."""
        scale = self.alpha / self.rank if use_alpha and self.alpha is not None else 1.0
        return (self.up.float().flatten(1) @ self.down.float().flatten(1)).reshape(shape) * scale

    def fits(self, weight: Tensor) -> bool:
        """Whether the change has the shape of `weight`."""
        joined = (self.up.shape[0], self.down[0].numel())
        return self.up[0].numel() == self.rank and joined == (weight.shape[0], weight[0].numel())


@dataclass(frozen=True)
class Lora:
    """A LoRA file: for each part ("unet", "text_encoder", "vae") flat module name (dots as underscores) -> pair."""

    source: Path
    parts: Mapping[str, Mapping[str, LoraPair]]


def read_lora(path: Path) -> Lora:
    """Read a LoRA file with either kind of names. WeightsError for other kinds (DoRA, LoHa, ...)."""
    modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in load_state(path).items():
        name, role = _split(path, key)
        modules[name][role] = tensor
    alphas = _peft_alphas(path)
    parts: dict[str, dict[str, LoraPair]] = defaultdict(dict)
    for name, tensors in modules.items():
        part, flat = _place(path, name)
        parts[part][flat] = _pair(path, name, tensors, alphas.get(name))
    if not parts:
        raise WeightsError(f"{path}: holds no LoRA: choose another file")
    return Lora(path, dict(parts))


def _split(path: Path, key: str) -> tuple[str, str]:
    for role, endings in (("down", DOWN_ENDINGS), ("up", UP_ENDINGS), ("alpha", ALPHA_ENDINGS)):
        for ending in endings:
            if key.endswith(ending):
                return key.removesuffix(ending), role
    raise WeightsError(f"{path}: {key} is no plain LoRA (DoRA, LoHa, LoCon cores are not read): choose another file")


def _place(path: Path, name: str) -> tuple[str, str]:
    # the longest prefix first: "lora_te1_" before "lora_te_" makes no difference, "unet." inside a name would
    for part, prefixes in PREFIXES.items():
        for prefix in prefixes:
            if name.startswith(prefix):
                return part, flat_name(name.removeprefix(prefix))
    raise WeightsError(f"{path}: {name} names no UNet, text encoder or VAE: choose a LoRA for SD 1.5 or 2.1")


def flat_name(name: str) -> str:
    """A module's path as in LoRA files: with underscores instead of dots."""
    # diffusers once kept the LoRA inside attention processors: attn1.processor.to_q_lora
    return name.replace(".processor.", ".").replace("to_out_lora", "to_out.0").removesuffix("_lora").replace(".", "_")


def _pair(path: Path, name: str, tensors: Mapping[str, Tensor], alpha: float | None) -> LoraPair:
    if "down" not in tensors or "up" not in tensors:
        lost = "down" if "up" in tensors else "up"
        raise WeightsError(f"{path}: {name} lacks its {lost} weight: get the file again")
    if min(tensors["down"].dim(), tensors["up"].dim()) < 2 or 0 in (*tensors["down"].shape, *tensors["up"].shape):
        raise WeightsError(f"{path}: {name} is no pair of matrices: get the file again")
    if "alpha" in tensors:
        alpha = _number(tensors["alpha"])
    if alpha is not None and not math.isfinite(alpha):
        raise WeightsError(f"{path}: the alpha of {name} is not one number: get the file again")
    return LoraPair(tensors["down"], tensors["up"], alpha)


def _number(tensor: Tensor) -> float:
    """The value of a tensor with one real number; NaN for other tensors."""
    return math.nan if tensor.numel() != 1 or tensor.is_complex() else float(tensor)


def _peft_alphas(path: Path) -> dict[str, float]:
    """The alphas in peft's metadata, by module name."""
    from srcli.weights.header import read_header

    header = read_header(path)
    text = header.metadata.get("lora_adapter_metadata")
    if text is None:
        return {}
    try:
        known = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its lora_adapter_metadata is not json: get the file again") from error
    if not isinstance(known, dict):
        raise WeightsError(f"{path}: its lora_adapter_metadata is no table of values: get the file again")
    names = {_split(path, key)[0] for key in header.shapes}
    return {name: alpha for name in names if (alpha := _peft_alpha(known, name)) is not None}


def _peft_alpha(known: Mapping[str, object], name: str) -> float | None:
    part, _, module = name.partition(".")
    patterns = known.get(f"{part}.alpha_pattern")
    special = patterns.get(module) if isinstance(patterns, dict) else None
    alpha = special if special is not None else known.get(f"{part}.lora_alpha")
    if not isinstance(alpha, int | float):
        return None
    try:
        return float(alpha)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def merge_lora(lora: Lora, networks: Mapping[str, nn.Module], multiplier: float = 1.0, use_alpha: bool = True) -> int:
    """Add a LoRA to the networks' weights, in place; returns the number of changed weights.

    `use_alpha=False`: without alpha / rank, as in the official PASD. All pairs are checked before any is added.
    """
    jobs = []
    for part, pairs in lora.parts.items():
        if part not in networks:
            raise WeightsError(f"{lora.source}: also changes the {TITLES[part]}, which stays as it is: choose another")
        jobs += _match_pairs(lora, networks[part], pairs, TITLES[part])
    with torch.no_grad():
        for weight, pair in jobs:
            changed = weight.float() + multiplier * pair.delta(weight.shape, use_alpha).to(weight.device)
            weight.copy_(changed)
    return len(jobs)


def _misfit(lora: Lora, what: str) -> WeightsError:
    return WeightsError(f"{lora.source}: {what}: choose a LoRA made for this base model")


def _match_pairs(
    lora: Lora, module: nn.Module, pairs: Mapping[str, LoraPair], part: str
) -> list[tuple[Tensor, LoraPair]]:
    weights = _weights(module)
    jobs = []
    for name, pair in pairs.items():
        weight = weights.get(name, weights.get(name.removeprefix(OPTIONAL)))
        if weight is None:
            raise _misfit(lora, f"{name} is not in this {part}")
        if not pair.fits(weight):
            size = f"{pair.up.shape[0]}x{pair.down[0].numel()}"
            own = f"{weight.shape[0]}x{weight[0].numel()}"
            raise _misfit(lora, f"{name} changes a {size} weight and this {part} has {own}")
        jobs.append((weight, pair))
    return jobs


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """All weight matrices and kernels, by their names in LoRA files."""
    return {
        name.removesuffix(".weight").replace(".", "_"): weight
        for name, weight in module.named_parameters()
        if name.endswith(".weight") and weight.dim() >= 2
    }
