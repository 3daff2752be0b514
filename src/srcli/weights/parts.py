"""Choose a model's files in a folder or repository: safetensors before pickles, full precision before variants."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from srcli.errors import WeightsError
from srcli.weights.lock import PICKLES

SUFFIX = ".safetensors"
TEXTS = (".json", ".txt", ".model")
DIFFUSERS = ("model_index.json", "unet/*", "vae/*", "text_encoder/*", "tokenizer/*", "scheduler/*")
NOT_WEIGHTS = ("scaler.pt", "optimizer.bin", "scheduler.bin", "random_states_0.pkl")  # left by training
OTHERS = ("flax_", "tf_", "rust_", "openvino_", "README")


def variant_of(name: str) -> str | None:
    """ "fp16" for "model.fp16.safetensors" and its shards; None for "model.safetensors"."""
    parts = name.removesuffix(SUFFIX).split(".")
    return parts[1].split("-")[0] if len(parts) > 1 else None


def choose_files(paths: Iterable[str]) -> list[str]:
    """The files, among these, that a model is loaded from."""
    folders: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        folders[str(PurePosixPath(path).parent)].append(path)
    return [path for members in folders.values() for path in _choose_in_folder(members)]


def _choose_in_folder(paths: list[str]) -> list[str]:
    own = [path for path in paths if not PurePosixPath(path).name.startswith(OTHERS)]
    tensors = _choose_variant([path for path in own if path.endswith(SUFFIX)])
    pickles = [path for path in own if path.endswith(PICKLES) and PurePosixPath(path).name not in NOT_WEIGHTS]
    texts = [path for path in own if path.endswith(TEXTS) and "index.fp16" not in path and "index.non_ema" not in path]
    return texts + (tensors or _choose_variant(pickles))


def _choose_variant(paths: list[str]) -> list[str]:
    """The plain files, or those of one variant, preferably fp16."""
    kinds: dict[str | None, list[str]] = defaultdict(list)
    for path in paths:
        stem, _, _ = PurePosixPath(path).name.rpartition(".")
        kinds[variant_of(stem + SUFFIX)].append(path)
    best = min(kinds, key=lambda kind: (kind is not None, kind != "fp16", kind or ""), default=None)
    return kinds.get(best, [])


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component's folder. WeightsError if there are none, or only pickles."""
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder: get it again, or choose another")
    names = [path.name for path in folder.iterdir() if path.is_file()]
    found = [name for name in choose_files(names) if not name.endswith(TEXTS)]
    if found and found[0].endswith(SUFFIX):
        return [folder / name for name in found]
    if found:
        raise WeightsError(f"{folder}: holds only the pickle {found[0]}: convert it with `allow_pickle`")
    raise WeightsError(f"{folder}: holds no safetensors file: get the folder again, or choose another")
