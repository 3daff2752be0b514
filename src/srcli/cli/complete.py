"""Completions: what can follow an option whose values are names. Nothing heavy is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from srcli.engines.registry import all_engines
from srcli.errors import SrcliError
from srcli.settings import AUTO
from srcli.target_sizes import PAPERS, SCREENS
from srcli.weights.store import Store


def complete_engines(incomplete: str) -> list[str]:
    return _beginning((AUTO, *all_engines()), incomplete)


def complete_variants(incomplete: str) -> list[str]:
    return _beginning((name for spec in all_engines().values() for name in spec.variant_names), incomplete)


def complete_target_sizes(incomplete: str) -> list[str]:
    return _beginning((*SCREENS, *(f"{paper}@300" for paper in PAPERS)), incomplete)


def complete_degradations(incomplete: str) -> list[str]:
    from srcli.degrade.presets import PRESETS

    return _beginning(PRESETS, incomplete) + _paths(incomplete)


def complete_test_sets(incomplete: str) -> list[str]:
    return _beginning((f"bicubic-x{scale}" for scale in (2, 3, 4)), incomplete) + complete_degradations(incomplete)


def complete_metrics(incomplete: str) -> list[str]:
    from srcli.metrics.registry import METRICS

    return _beginning(METRICS, incomplete)


def complete_formats(incomplete: str) -> list[str]:
    from srcli.imaging.formats import writable_formats

    return _beginning((row.name.lower() for row in writable_formats()), incomplete)


def complete_train_devices(incomplete: str) -> list[str]:
    return _beginning((AUTO, "cpu"), incomplete)


def complete_devices(incomplete: str) -> list[str]:
    return _beginning((AUTO, "cpu", "cuda", "mps"), incomplete)


def complete_bases(incomplete: str) -> list[str]:
    return _weights(incomplete, "base") + _paths(incomplete)


def complete_adapters(incomplete: str) -> list[str]:
    return _weights(incomplete, "adapter") + _paths(incomplete)


def complete_loras(incomplete: str) -> list[str]:
    return _weights(incomplete, "lora") + _paths(incomplete)


def complete_weights(incomplete: str) -> list[str]:
    """All of weights.lock."""
    return _weights(incomplete)


def _weights(incomplete: str, kind: str = "") -> list[str]:
    try:
        entries = Store(offline=True).lock().values()
    except SrcliError:  # a broken lock is reported by the command itself
        return []
    return _beginning((entry.name for entry in entries if kind in ("", entry.kind)), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _paths(incomplete: str) -> list[str]:
    """Files and folders, once the beginning of a path is typed."""
    if not incomplete.startswith(".") and "/" not in incomplete:
        return []
    folder, slash, begun = incomplete.rpartition("/")
    found = sorted(Path(f"{folder}{slash}" or ".").glob(f"{begun}*"))
    return [f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}" for path in found]
