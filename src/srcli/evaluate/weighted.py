"""Metrics that need weights, and whether these are here; imports torch only to use one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from srcli.errors import InputError, WeightsError, unknown_word
from srcli.evaluate.sets import Extract, load_extractor
from srcli.metrics.network_metrics import BACKBONES, INCEPTION, PERCEPTUAL_METRICS, SET_METRICS, SetMetric
from srcli.metrics.registry import METRICS, TRUTH, Metric, choose_metrics
from srcli.weights.store import Store


@dataclass(frozen=True, slots=True)
class ChosenMetrics:
    """Metrics of single pictures and of whole sets."""

    metrics: tuple[Metric, ...]
    set_metrics: tuple[SetMetric, ...] = ()
    extract: Extract | None = None  # for the metrics of sets
    absent: tuple[str, ...] = ()  # lines on what is missing


def choose_all_metrics(names: tuple[str, ...], given: frozenset[str], allow_pickle: bool = False) -> ChosenMetrics:
    """The metrics of these names, or all that the given pictures allow; and a line on those that are missing.

    Raises InputError, and WeightsError for a metric that is named and whose weights are not here.
    """
    weighted = tuple(name for name in names if name in BACKBONES)
    if weighted and TRUTH not in given:
        raise InputError(f"{weighted[0]} needs the {TRUTH}: give --{TRUTH} FOLDER")
    if names:
        plain = tuple(name for name in names if name not in BACKBONES)
        if unknown := [name for name in plain if name not in METRICS]:
            raise unknown_word("`metric`", unknown[0], (*METRICS, *BACKBONES))
        for name in weighted:
            if missing := find_missing(BACKBONES[name], allow_pickle):
                raise WeightsError(f"{name} needs {missing}")
        return _load_metrics(choose_metrics(plain, given) if plain else (), weighted, allow_pickle)
    if TRUTH not in given:
        return ChosenMetrics(choose_metrics((), given))
    here, absent = _sort_by_presence(allow_pickle)
    return _load_metrics(choose_metrics((), given), here, allow_pickle, absent)


def _sort_by_presence(allow_pickle: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The metrics whose weights are here, and a line on those whose weights are not."""
    here: list[str] = []
    absent = []
    for backbone in dict.fromkeys(BACKBONES.values()):
        group = [name for name, needed in BACKBONES.items() if needed == backbone]
        if missing := find_missing(backbone, allow_pickle):
            absent.append(f"{', '.join(group)}: not measured, needs {missing}")
        else:
            here += group
    return tuple(here), tuple(absent)


def find_missing(backbone: str, allow_pickle: bool = False) -> str:
    """The commands that install what is missing; empty if nothing is."""
    store = Store(offline=True)
    commands = [] if backbone == INCEPTION or find_spec("torchmetrics") else ["pip install 'srcli[metrics]'"]
    if not store.has(backbone):
        commands.append(f"srcli models pull {backbone}")
    elif not store.can_open(backbone, allow_pickle):
        commands.append("--allow-pickle once: its weights are a pickle")
    return " and ".join(commands)


def _load_metrics(
    plain: tuple[Metric, ...], weighted: tuple[str, ...], allow_pickle: bool, absent: tuple[str, ...] = ()
) -> ChosenMetrics:
    """The plain metrics, and those of these names with their networks."""
    set_metrics = tuple(metric for metric in SET_METRICS if metric.name in weighted)
    return ChosenMetrics(
        plain + _load_perceptual(weighted, allow_pickle),
        set_metrics,
        load_extractor(_find_weights(INCEPTION, allow_pickle)) if set_metrics else None,
        absent,
    )


def _load_perceptual(names: tuple[str, ...], allow_pickle: bool) -> tuple[Metric, ...]:
    if not (chosen := [metric for metric in PERCEPTUAL_METRICS if metric.name in names]):
        return ()
    from srcli.evaluate.perceptual import load_metric, read_backbone

    backbones = {metric.backbone for metric in chosen}
    networks = {name: read_backbone(name, _find_weights(name, allow_pickle)) for name in backbones}
    return tuple(load_metric(metric, networks[metric.backbone]) for metric in chosen)


def _find_weights(backbone: str, allow_pickle: bool) -> Path:
    (path,) = Store(offline=True).resolve(backbone, allow_pickle=allow_pickle).files.values()
    return path
