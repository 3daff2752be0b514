"""Which metrics need weights, and whether they are here; loads no torch until one is used."""

from __future__ import annotations

from importlib.util import find_spec

from srcli.errors import InputError, WeightsError
from srcli.metrics.registry import METRICS, TRUTH, Metric, choose_metrics
from srcli.weights.store import Store

BACKBONE = "vgg16"
WEIGHTED = ("lpips-vgg", "dists")


def choose_all_metrics(names: tuple[str, ...], given: frozenset[str]) -> tuple[tuple[Metric, ...], tuple[str, ...]]:
    """The metrics of these names, or all that can be found from what is given; and a line for each that is absent.

    Asked for by name, a metric whose weights are not here is an error. Raises InputError, WeightsError.
    """
    weighted = tuple(name for name in names if name in WEIGHTED)
    if weighted and TRUTH not in given:
        raise InputError(f"{weighted[0]} needs the {TRUTH}: give --{TRUTH} FOLDER")
    if names:
        plain = tuple(name for name in names if name not in WEIGHTED)
        if unknown := [name for name in plain if name not in METRICS]:
            raise InputError(f"no metric named {unknown[0]!r}: choose of {', '.join((*METRICS, *WEIGHTED))}")
        return (choose_metrics(plain, given) if plain else ()) + _load(weighted), ()
    if TRUTH not in given:
        return choose_metrics((), given), ()
    missing = what_is_missing()
    absent = (f"{', '.join(WEIGHTED)}: not measured, needs {missing}",) if missing else ()
    return choose_metrics((), given) + (() if missing else _load(WEIGHTED)), absent


def what_is_missing() -> str:
    """The commands that would bring what is not here; empty if all is."""
    commands = [] if find_spec("torchmetrics") else ["pip install 'srcli[metrics]'"]
    if not Store(offline=True).has(BACKBONE):
        commands.append(f"srcli models pull {BACKBONE}")
    return " and ".join(commands)


def _load(names: tuple[str, ...]) -> tuple[Metric, ...]:
    if not names:
        return ()
    if missing := what_is_missing():
        raise WeightsError(f"{names[0]} needs {missing}")
    from srcli.evaluate.perceptual import PERCEPTUAL_METRICS, read_backbone

    (path,) = Store(offline=True).resolve(BACKBONE).files.values()
    backbone = read_backbone(path)
    return tuple(kind.load(backbone) for kind in PERCEPTUAL_METRICS if kind.name in names)
