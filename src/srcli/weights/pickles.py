"""Convert pickled checkpoints to safetensors, loaded weights-only. Only used with `--allow-pickle`.

Weights-only loading could run code in torch before 2.10, so older versions are refused. Classes of training programs
that are stored beside the weights are replaced by a class that does nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from srcli.errors import MachineError, WeightsError
from srcli.files import replace_file
from srcli.weights.header import unreadable_weights
from srcli.weights.one_step import detect_published_kind, flatten_adapter

FIXED = (2, 10)
TIED_FACTOR = 2  # tied weights appear twice, so tensors may take up to twice the bytes of their file
WRAPPERS = ("state_dict", "params", "model_state")  # under which training programs put the weights
INERT = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "numpy")


class _Inert:
    """Replaces a class of a training program; stores nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def to_safetensors(path: Path, out: Path) -> Path:
    """Write the state dict, or one-step adapter, of a pickle to `out`, atomically."""
    refuse_broken_torch(torch.__version__)
    found = _load(path)
    kind = detect_published_kind(found)
    state, facts = flatten_adapter(path, found, kind) if kind else (_state(path, found), {})
    _check_plain(path, state)
    _check_size(path, state)
    out.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", "converted_from": path.name, **facts}
    try:
        with replace_file(out) as fresh:
            save_file(_copy_shared(state), fresh, metadata=metadata)
    except OSError as error:
        raise MachineError(f"{out}: cannot be written ({error.strerror}): free some space or choose HF_HOME") from error
    except (SafetensorError, KeyError, ValueError) as error:  # a dtype or a name that safetensors has no form for
        raise WeightsError(f"{path}: cannot be converted ({error}): use a safetensors file") from error
    return out


def refuse_broken_torch(version: str) -> None:
    """Refuse versions of torch whose weights-only loading can run code (CVE-2025-32434, CVE-2026-24747)."""
    major, minor = (int(part) for part in version.split("+")[0].split(".")[:2])
    if (major, minor) < FIXED:
        raise WeightsError(
            f"torch {version} can run code from a pickle in spite of weights-only loading: "
            "install torch 2.10 or later, or use safetensors"
        )


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_inert_globals(path)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_zipped(path))
    except FileNotFoundError as error:
        raise unreadable_weights(path, error) from error
    except Exception as error:  # torch's reader raises nearly every kind on damaged files
        raise WeightsError(f"{path}: holds more than weights, or is damaged: use a safetensors file") from error


def _zipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _inert_globals(path: Path) -> list[Any]:
    """Map the classes of known training libraries to `_Inert`; all others are refused by torch."""
    if not _zipped(path):
        return []
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return [(_Inert, name) for name in names if name.split(".")[0] in INERT]


def _state(path: Path, found: Any) -> dict[str, Tensor]:
    state = next((found[name] for name in WRAPPERS if name in found), found) if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path}: holds no state_dict: use a safetensors file")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise WeightsError(f"{path}: {name} is not a tensor: use a safetensors file")
    return dict(state)


def _check_plain(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse sparse, quantized, nested and meta tensors."""
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.device.type != "cpu":
            raise WeightsError(f"{path}: {name} is sparse, quantized or empty of data: use a safetensors file")


def _check_size(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse tensors larger than the file: with a stride of 0 a few bytes become terabytes when copied."""
    claimed, held = sum(tensor.nbytes for tensor in state.values()), path.stat().st_size
    if claimed > TIED_FACTOR * held:
        raise WeightsError(f"{path}: has {held:,} bytes and claims {claimed:,} bytes of weights: do not use it")


def _copy_shared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory, which safetensors cannot store."""
    seen: set[int] = set()
    alone: dict[str, Tensor] = {}
    for name, tensor in state.items():
        storage = tensor.untyped_storage()
        shared = storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size()
        seen.add(storage.data_ptr())
        alone[name] = tensor.detach().clone().contiguous() if shared else tensor.detach().contiguous()
    return alone
