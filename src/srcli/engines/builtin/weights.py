"""The file format of a trained model: fp16 safetensors, with the network's shape in the metadata."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from srcli.errors import MachineError, WeightsError
from srcli.files import replace_file
from srcli.models.builtin import Builtin, BuiltinShape
from srcli.weights.header import read_header
from srcli.weights.open import load_into, load_state


def write_model(path: Path, shape: BuiltinShape, state: Mapping[str, Tensor], task: str) -> None:
    """Write a model file. It is replaced atomically, so that a full disk leaves the previous file intact."""
    halves = {name: tensor.half().contiguous() for name, tensor in state.items()}
    try:
        with replace_file(path) as fresh:
            save_file(halves, fresh, {"shape": json.dumps(asdict(shape)), "task": task})
            fresh.chmod(0o644)  # safetensors makes its files private
    except (OSError, SafetensorError) as error:
        raise disk_is_full(path, error) from error


def disk_is_full(path: Path, error: Exception) -> MachineError:
    """The error for a training file that cannot be written."""
    return MachineError(f"cannot write {path} ({error}): free disk space, then --resume")


def read_model(path: Path) -> Builtin:
    """Load a model, in fp32."""
    model = Builtin(read_shape(path))
    load_into(model, {name: tensor.float() for name, tensor in load_state(path).items()}, path)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.requires_grad_(False).eval()


def refold_model(model: Builtin, fold: int) -> Builtin:
    """The same network on cells of `fold` input pixels: a cell's mean has the same effect as before."""
    if model.shape.fold == fold:
        return model
    refolded = Builtin(replace(model.shape, fold=fold))
    state = model.state_dict()
    share = (model.shape.fold / fold) ** 2
    for name in ("head.weight", "estimator.local.0.weight"):
        mean = state[name].unflatten(1, (3, -1)).sum(2, keepdim=True)
        state[name] = (mean * share).expand(-1, -1, fold**2, -1, -1).flatten(1, 2)
    refolded.load_state_dict(state)
    return refolded


def read_shape(path: Path) -> BuiltinShape:
    try:
        stored: dict[str, Any] = json.loads(read_header(path).metadata["shape"])
        known = {f.name for f in fields(BuiltinShape)}
        sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items() if k in known}
        return BuiltinShape(**sizes)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is not a model of the built-in engine: choose another file") from error
