"""Completions of option values. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from srcli.engines.registry import all_engines
from srcli.errors import SrcliError
from srcli.settings import AUTO
from srcli.target_sizes import PAPERS, SCREENS
from srcli.weights.store import Store

Complete = Callable[[str], list[str]]  # from what was typed to all that it may become


def _complete_from(list_names: Callable[[], Iterable[str]], *, or_path: bool = False) -> Complete:
    """Completes names; `or_path`: also files and folders."""

    def complete(incomplete: str) -> list[str]:
        names = [name for name in list_names() if name.startswith(incomplete)]
        return names + (_paths(incomplete) if or_path else [])

    return complete


def _list_weights(kind: str = "") -> Iterable[str]:
    """Names of weights.lock, of one kind or all."""
    try:
        entries = Store(offline=True).lock().values()
    except SrcliError:  # a broken lock is reported by the command itself
        return ()
    return (entry.name for entry in entries if kind in ("", entry.kind))


def _list_degradations() -> Iterable[str]:
    from srcli.degrade.presets import PRESETS

    return PRESETS


def _list_metrics() -> Iterable[str]:
    from srcli.metrics.network_metrics import BACKBONES
    from srcli.metrics.registry import METRICS

    return (*METRICS, *BACKBONES)


def _list_formats() -> Iterable[str]:
    from srcli.imaging.formats import writable_formats

    return (row.name.lower() for row in writable_formats())


def _paths(incomplete: str) -> list[str]:
    """Files and folders, if the beginning looks like a path."""
    if not incomplete.startswith(".") and "/" not in incomplete:
        return []
    folder, slash, begun = incomplete.rpartition("/")
    found = sorted(Path(f"{folder}{slash}" or ".").glob(f"{begun}*"))
    return [f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}" for path in found]


complete_engines = _complete_from(lambda: (AUTO, *all_engines()))
complete_variants = _complete_from(lambda: (name for spec in all_engines().values() for name in spec.variant_names))
complete_target_sizes = _complete_from(lambda: (*SCREENS, *(f"{paper}@300" for paper in PAPERS)))
complete_degradations = _complete_from(_list_degradations, or_path=True)
complete_test_sets = _complete_from(
    lambda: (*(f"bicubic-x{scale}" for scale in (2, 3, 4)), *_list_degradations()), or_path=True
)
complete_metrics = _complete_from(_list_metrics)
complete_formats = _complete_from(_list_formats)
complete_devices = _complete_from(lambda: (AUTO, "cpu", "cuda", "mps"))
complete_train_devices = _complete_from(lambda: (AUTO, "cpu"))
complete_weights = _complete_from(_list_weights)
complete_bases = _complete_from(lambda: _list_weights("base"), or_path=True)
complete_adapters = _complete_from(lambda: _list_weights("adapter"), or_path=True)
complete_loras = _complete_from(lambda: _list_weights("lora"), or_path=True)
