"""The cached training pairs of CFW: compute missing ones, then read them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from srcli.degrade.settings import Degradation
from srcli.engines.stablesr.weights import open_stablesr
from srcli.settings import ModelChoice
from srcli.train.pairs import DegradedPairs
from srcli.train.pictures import require_data_folder, survey_pictures
from srcli.train.plan import TrainPlan
from srcli.train.processes import Processes
from srcli.train.running import Sources
from srcli.train.systems.cfw_cache import CachedPair, CachedSet, LatentMaker, fill_cache, find_pairs, read_pairs
from srcli.train.training_set import Share, TrainingSet
from srcli.weights.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlan:
    """`adapter` and `base` compute the latents of `pairs` degraded crops; with 0 only existing pairs are used."""

    folder: Path
    pairs: int
    adapter: str
    base: str | None
    side: int
    degradation: Degradation
    sampling_steps: int = 200
    allow_pickle: bool = False


def require_pairs_or_pictures(plan: TrainPlan, cache: CachePlan) -> None:
    """Raise InputError if pairs are missing and there is no folder to make them from; before weights are fetched."""
    if _find_missing(cache):
        require_data_folder(plan.data)
    else:
        find_pairs(cache.folder)


def _find_missing(cache: CachePlan) -> list[int]:
    return [i for i in range(cache.pairs) if not CachedPair.of(cache.folder, f"{i:07d}").exists()]


def open_cached_sources(plan: TrainPlan, cache: CachePlan, store: Store, processes: Processes) -> Sources:
    """All pairs of the cache, the last few for validation. Missing ones are computed first."""
    if missing := _find_missing(cache):
        log.info(f"{len(missing)} of {cache.pairs} pairs are computed first")
        _fill(plan, cache, store, processes)
    processes.wait()
    names = find_pairs(cache.folder)
    held_out = min(plan.validation, len(names))
    trained = names[:-held_out] if len(names) >= 10 * held_out > 0 else names
    log.info(f"{len(names)} pairs in {cache.folder}")
    share = Share(plan.batch, processes.rank, processes.count)
    last = names[len(names) - held_out :]
    validation = [read_pairs(cache.folder, [name], index, (0,)) for index, name in enumerate(last)]
    return Sources(CachedSet(cache.folder, trained, share, plan.seed), validation, len(trained))


def _fill(plan: TrainPlan, cache: CachePlan, store: Store, processes: Processes) -> None:
    """Compute this process's share of the missing pairs. All are degraded: clean pairs would teach nothing."""
    found = survey_pictures(require_data_folder(plan.data), cache.side // 4)
    found.report(cache.side // 4)
    pairs = DegradedPairs(cache.side, replace(cache.degradation, clean=0.0))
    source = TrainingSet(found.usable, pairs, Share(1), plan.seed)
    choice = ModelChoice(engine="stablesr", adapter=cache.adapter, base=cache.base, allow_pickle=cache.allow_pickle)
    maker = LatentMaker(open_stablesr(choice, store), processes.accelerator.device, cache.sampling_steps)
    every = max(1, cache.pairs // 100)

    def progress(done: int, total: int) -> None:
        if done % every == 0 or done == total:
            log.info(f"pair {done} of {total}")

    fill_cache(cache.folder, cache.pairs, source, maker, Share(1, processes.rank, processes.count), progress)
