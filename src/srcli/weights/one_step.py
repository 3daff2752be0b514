"""Adapters of one-step models: the LoRAs of OSEDiff and PiSA-SR, as published and in our flat form.

A published file is a pickled dict of tensors, ranks and lists of module names. The flat form is a safetensors file
with names like `unet.<module>.lora_A.weight` (PiSA-SR: `pix.unet.` and `sem.unet.`), and ranks and alpha in its
metadata. The alpha is peft's default of 8, which the published files do not contain.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from srcli.errors import WeightsError
from srcli.weights.families import ONE_STEP
from srcli.weights.header import read_header
from srcli.weights.lora import Lora, LoraPair, flat_name, merge_lora
from srcli.weights.open import load_state

OSEDIFF_KIND, PISA_KIND = ONE_STEP
LORA_ALPHA = 8.0
REPLACED = "conv_in"  # the only layer that OSEDiff trained completely, in addition to its LoRA
UNET_PART, VAE_PART, PIXEL_PART, SEMANTIC_PART = "unet", "vae", "pix.unet", "sem.unet"
LORA_HALF = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])\.(?P<adapter>\w+)\.weight")
REPLACED_LAYER = re.compile(rf"(?P<module>{REPLACED})\.base_layer\.(?P<end>weight|bias)")


@dataclass(frozen=True)
class AdapterPart:
    """One LoRA of an adapter: its name in the flat form, and its keys in a published file."""

    name: str
    state: str  # the dict of its tensors
    rank: str
    lists: Mapping[str, str]  # adapter -> the list of its modules
    rank_key: str  # the rank's name in the flat form's metadata


def _unet_lists(ending: str) -> dict[str, str]:
    groups = ("encoder", "decoder", "others")
    return {f"default_{group}{ending}": f"unet_lora_{group}_modules{ending}" for group in groups}


ADAPTER_PARTS: Mapping[str, tuple[AdapterPart, ...]] = {
    OSEDIFF_KIND: (
        AdapterPart(UNET_PART, "state_dict_unet", "rank_unet", _unet_lists(""), "rank_unet"),
        AdapterPart(
            VAE_PART, "state_dict_vae", "rank_vae", {"default_encoder": "vae_lora_encoder_modules"}, "rank_vae"
        ),
    ),
    PISA_KIND: (
        AdapterPart(PIXEL_PART, "state_dict_unet", "lora_rank_unet_pix", _unet_lists("_pix"), "rank_pix"),
        AdapterPart(SEMANTIC_PART, "state_dict_unet", "lora_rank_unet_sem", _unet_lists("_sem"), "rank_sem"),
    ),
}


@dataclass(frozen=True)
class Changes:
    """An adapter's changes to one network: LoRA pairs by module, and weights that are replaced first."""

    source: Path
    pairs: Mapping[str, LoraPair]
    replaced: Mapping[str, Tensor]

    def lora(self, network: str) -> Lora:
        """The pairs as a LoRA for this network."""
        return Lora(self.source, {network: {flat_name(name): pair for name, pair in self.pairs.items()}})

    def halves(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The two factors of each module's change, with alpha / rank multiplied into the second."""
        return {name: (pair.down, pair.up * ((pair.alpha or 0) / pair.rank)) for name, pair in self.pairs.items()}


@dataclass(frozen=True)
class OneStepAdapter:
    """A one-step adapter in memory."""

    source: Path
    kind: str
    changes: Mapping[str, Changes]


def detect_published_kind(content: Any) -> str | None:
    """The kind of adapter in an unpickled object; None for any other object."""
    if not isinstance(content, Mapping) or "state_dict_unet" not in content:
        return None
    return OSEDIFF_KIND if "rank_unet" in content else PISA_KIND if "lora_rank_unet_pix" in content else None


def flatten_adapter(path: Path, found: Mapping[str, Any], kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Convert a published file to tensors and metadata of the flat form. WeightsError if it is incomplete."""
    tensors: dict[str, Tensor] = {}
    metadata = {"kind": kind, "lora_alpha": f"{LORA_ALPHA:g}"}
    known = {adapter for part in ADAPTER_PARTS[kind] for adapter in part.lists}
    for part in ADAPTER_PARTS[kind]:
        rank, state = _entry(path, found, part.rank, int), _entry(path, found, part.state, dict)
        own = flatten_part(path, part, state, known)
        _check_listed(path, part, found, own)
        tensors |= {f"{part.name}.{name}": tensor for name, tensor in own.items()}
        metadata[part.rank_key] = str(rank)
    read_adapter_state(path, kind, tensors, metadata)
    return tensors, metadata


def _entry(path: Path, found: Mapping[str, Any], name: str, of: type) -> Any:
    value = found.get(name)
    if not isinstance(value, of):
        raise WeightsError(f"{path}: lacks {name}: get the file again")
    return value


def flatten_part(path: Path, part: AdapterPart, state: Mapping[str, Any], known: set[str]) -> dict[str, Tensor]:
    """This part's tensors with their flat names; those of other parts are skipped."""
    flat: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = LORA_HALF.fullmatch(name) or REPLACED_LAYER.fullmatch(name)
        if not isinstance(tensor, Tensor) or match is None:
            raise WeightsError(f"{path}: {name} is not part of a LoRA: choose another file")
        names = match.groupdict()
        if "end" in names:
            flat[f"{names['module']}.{names['end']}"] = tensor
        elif names["adapter"] in part.lists:
            flat[f"{names['module']}.lora_{names['half']}.weight"] = tensor
        elif names["adapter"] not in known:
            raise WeightsError(f"{path}: {name} belongs to no known adapter: choose another file")
    return flat


def _check_listed(path: Path, part: AdapterPart, found: Mapping[str, Any], flat: Mapping[str, Tensor]) -> None:
    """Check the file's lists of modules against its tensors."""
    listed = {str(name) for key in part.lists.values() for name in _entry(path, found, key, list)}
    held = {name.partition(".lora_")[0] for name in flat if ".lora_" in name}
    if lost := sorted(listed - held):
        raise WeightsError(f"{path}: lists {lost[0]} and has no {part.name} change for it: get the file again")
    if extra := sorted(held - listed):
        raise WeightsError(f"{path}: changes {extra[0]}, which it does not list: get the file again")


def read_adapter(path: Path) -> OneStepAdapter:
    """Load an adapter in the flat form."""
    header = read_header(path)
    kind = header.metadata.get("kind", "")
    if kind not in ADAPTER_PARTS:
        raise WeightsError(f"{path}: is not an OSEDiff or PiSA-SR adapter: choose another file")
    return read_adapter_state(path, kind, load_state(path), header.metadata)


def read_adapter_state(
    path: Path, kind: str, state: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> OneStepAdapter:
    """An adapter from the tensors and the metadata of the flat form."""
    alpha = _number(path, metadata, "lora_alpha")
    left, changes = dict(state), dict[str, Changes]()
    for part in ADAPTER_PARTS[kind]:
        prefix = part.name + "."
        own = {name.removeprefix(prefix): left.pop(name) for name in state if name.startswith(prefix)}
        if not own:
            raise WeightsError(f"{path}: lacks all of its {part.name} part: get the file again")
        changes[part.name] = read_changes(path, own, alpha, int(_number(path, metadata, part.rank_key)))
    if left:
        raise WeightsError(f"{path}: has unknown {min(left)}: choose another file")
    _check_replaced(path, kind, changes)
    return OneStepAdapter(path, kind, changes)


def _number(path: Path, metadata: Mapping[str, str], name: str) -> float:
    try:
        return float(metadata[name])
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path}: its metadata gives no {name}: convert the published file again") from error


def read_changes(path: Path, state: Mapping[str, Tensor], alpha: float, rank: int) -> Changes:
    """Check and group the tensors of one part of the flat form."""
    halves: dict[str, dict[str, Tensor]] = defaultdict(dict)
    replaced: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, separator, half = name.partition(".lora_")
        if separator:
            halves[module][half] = tensor
        else:
            replaced[name] = tensor
    pairs = {module: _pair(path, module, both, alpha, rank) for module, both in halves.items()}
    return Changes(path, pairs, replaced)


def _pair(path: Path, module: str, halves: Mapping[str, Tensor], alpha: float, rank: int) -> LoraPair:
    for name in ("A.weight", "B.weight"):
        if name not in halves:
            raise WeightsError(f"{path}: {module} lacks its lora_{name}: get the file again")
    if unknown := sorted(halves.keys() - {"A.weight", "B.weight"}):
        raise WeightsError(f"{path}: {module} has unknown lora_{unknown[0]}: choose another file")
    pair = LoraPair(halves["A.weight"], halves["B.weight"], alpha)
    if pair.rank != rank:
        raise WeightsError(f"{path}: {module} is of rank {pair.rank} and the file says {rank}: get the file again")
    return pair


def _check_replaced(path: Path, kind: str, changes: Mapping[str, Changes]) -> None:
    """Check that OSEDiff replaces the whole input convolution, and PiSA-SR nothing."""
    expected = {UNET_PART: {f"{REPLACED}.weight", f"{REPLACED}.bias"}} if kind == OSEDIFF_KIND else {}
    for name, change in changes.items():
        required, present = expected.get(name, set()), set(change.replaced)
        if missing := sorted(required - present):
            raise WeightsError(f"{path}: lacks {name}.{missing[0]}: get the file again")
        if extra := sorted(present - required):
            raise WeightsError(f"{path}: has unknown {name}.{extra[0]}: choose another file")


def apply_changes(changes: Changes, net: nn.Module, network: str) -> None:
    """Merge an adapter's changes into a network's weights: first the replaced weights, then the LoRA."""
    own = net.state_dict()
    for name, tensor in changes.replaced.items():
        if name not in own or own[name].shape != tensor.shape:
            raise WeightsError(f"{changes.source}: {name} does not fit this base model: choose SD 2.1-base")
        own[name].copy_(tensor)
    merge_lora(changes.lora(network), {network: net})
