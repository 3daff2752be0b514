"""Load weights strictly: missing, unexpected and mis-shaped keys are errors that name the key and the file."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from srcli.errors import WeightsError
from srcli.files import read_regular
from srcli.weights.header import unreadable_weights
from srcli.weights.parts import variant_of, weight_files

Module = TypeVar("Module", bound=nn.Module)
NAMES_SHOWN = 3
LARGEST_CONFIG = 4 << 20
MOST_MAPPED = 16 << 20  # bytes of a file, besides one tensor, that `load_state` maps at a time

# Old text encoders store position ids, which newer versions of transformers compute.
COMPUTED = "embeddings.position_ids"


def load_state(
    path: Path, prefix: str = "", names: Collection[str] | None = None, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Read the tensors whose name starts with `prefix`, which is removed, or only `names` of them.

    Nothing else of the file is read. WeightsError if one of `names` is missing. Without a `dtype` the tensors are
    views of the memory-mapped file, which stays mapped as long as one of them exists. With a `dtype` floating-point
    tensors are cast, and at most MOST_MAPPED bytes of the file and one tensor are in memory besides.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118 (no mapping)
            wanted = keys if names is None else _list_wanted(path, keys, prefix, names)
            if dtype is None:
                return {key.removeprefix(prefix): file.get_tensor(key) for key in wanted}
        return {key.removeprefix(prefix): tensor for key, tensor in _read_copies(path, wanted, dtype)}
    except (SafetensorError, OSError, UnicodeDecodeError, ValueError) as error:
        raise unreadable_weights(path, error) from error


def _read_copies(path: Path, keys: Iterable[str], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Tensors, cast. The file is reopened every MOST_MAPPED bytes: a single mapping would keep all pages in memory."""
    from safetensors import safe_open

    left = list(keys)[::-1]
    while left:
        with safe_open(str(path), framework="pt") as file:
            held = 0
            while left and held < MOST_MAPPED:
                tensor: Tensor = file.get_tensor(left[-1])
                held += tensor.nbytes
                yield left.pop(), tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
        del tensor


def _list_wanted(path: Path, keys: Collection[str], prefix: str, names: Collection[str]) -> list[str]:
    wanted = [prefix + name for name in names]
    if lost := sorted(set(wanted) - set(keys)):
        raise WeightsError(f"{path}: lacks {_some(lost)}: get the file again or choose another")
    return wanted


def load_into(module: Module, state: Mapping[str, Tensor], source: Path | str) -> Module:
    """Load exactly the tensors of `state`, read from `source`, into `module`; returns the module.

    A module on the meta device gets the tensors themselves; any other module keeps its device and dtype.
    """
    own = module.state_dict()
    known = {name: tensor for name, tensor in state.items() if name in own}
    shapes = [
        f"{name} ({tuple(tensor.shape)} for {tuple(own[name].shape)})"
        for name, tensor in sorted(known.items())
        if tensor.shape != own[name].shape
    ]
    _refuse(source, own.keys() - state.keys(), state.keys() - own.keys(), shapes)
    module.load_state_dict(known, strict=False, assign=any(tensor.is_meta for tensor in own.values()))
    return _check_complete(module, source)


def _refuse(source: Path | str, missing: Iterable[str], unexpected: Iterable[str], shapes: list[str]) -> None:
    unknown = sorted(name for name in unexpected if not name.endswith(COMPUTED))
    wrong = (("lacks", sorted(missing)), ("has unknown", unknown), ("has mis-shaped", shapes))
    if parts := [f"{verb} {_some(names)}" for verb, names in wrong if names]:
        raise WeightsError(f"{source}: {', '.join(parts)}: this is not the file for this model, choose another")


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + rest


def _wrong_file(source: Path | str, what: str) -> WeightsError:
    return WeightsError(f"{source}: {what}: this is not the file for this model")


def _check_complete(module: Module, source: Path | str) -> Module:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta:
            raise _wrong_file(source, f"gives nothing for {name}")
    return module


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Read a component's JSON configuration."""
    path = folder / name
    try:
        config = json.loads(read_regular(path, LARGEST_CONFIG))
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file: get the folder again, or choose another") from error
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not a configuration ({_line(error)}): get the file again") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path}: not a configuration: get the file again")
    return config


@contextmanager
def library_errors(source: Path, remedy: str) -> Iterator[None]:
    """Turn any exception of a library into a WeightsError that names `source`.

    Only for calls into libraries, which may raise any exception for an invalid file or configuration.
    """
    try:
        yield
    except (MemoryError, WeightsError):
        raise
    except Exception as error:
        raise WeightsError(f"{source}: cannot be opened ({_line(error)}): {remedy}") from error


def load_component(cls: type[Module], folder: Path) -> Module:
    """Load a diffusers or transformers model from its folder, from safetensors only, without network.

    `cls.from_pretrained` only logs incomplete weights; here its loading report is checked.
    """
    files = weight_files(folder)
    kind = variant_of(files[0].name)
    options: dict[str, Any] = {"variant": kind} if kind else {}
    silence_libraries()
    with library_errors(folder, "verify or pull it again"):
        module, report = cls.from_pretrained(  # type: ignore[attr-defined]
            str(folder), use_safetensors=True, local_files_only=True, output_loading_info=True, **options
        )
    _check_report(files[0], report)
    loaded: Module = _check_complete(module, files[0])
    return loaded.eval()


def _check_report(source: Path, report: Mapping[str, Any]) -> None:
    shapes = [item[0] if isinstance(item, tuple) else str(item) for item in report["mismatched_keys"]]
    _refuse(source, report["missing_keys"], report["unexpected_keys"], sorted(shapes))
    if report["error_msgs"]:
        raise _wrong_file(source, report["error_msgs"][0])


def _line(error: Exception) -> str:
    """A library's message as one line."""
    return " ".join(str(error).split())[:240] or type(error).__name__


def silence_libraries() -> None:
    """Silence the libraries' loading reports and progress bars; problems are raised here instead."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
