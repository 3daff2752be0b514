"""Choose the engine that runs. Gigabytes are only downloaded for weights that the user named."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from srcli.engines.base import AdapterEvidence, EngineSpec
from srcli.engines.registry import engines_for, find_engine
from srcli.errors import InputError, WeightsError
from srcli.files import expand_user, is_dir, is_file
from srcli.imaging.printable import format_bytes
from srcli.settings import AUTO, QUALITIES, DeviceChoice, ModelChoice, Sampling
from srcli.tasks import Job, Task
from srcli.weights.header import read_header
from srcli.weights.lock import PICKLES
from srcli.weights.parts import SUFFIX
from srcli.weights.store import Store

DEFAULT = Sampling()
FORECAST_SIZE = (512, 512)  # picture size for which a duration is estimated

log = logging.getLogger(__name__)


def choose_engine(
    task: Task,
    requested: ModelChoice,
    device: DeviceChoice,
    sampling: Sampling = DEFAULT,
    others: Sequence[object] = (),
    *,
    guided: bool = False,
    only_here: bool = True,
) -> ModelChoice:
    """The request with its engine decided and with the weights that the task and the quality add.

    `others`: further settings, with options that not every engine takes. `guided`: colour strokes or a reference
    are given. `only_here`: see `settle_choice`.
    """
    if task.needs_base and requested.base is None:
        names = ", ".join(Store(offline=True).bases())
        raise InputError(f"{task.name} needs a base model: give `base` NAME|FOLDER|FILE|hub-id; names: {names}")
    if requested.engine != AUTO:
        spec = find_engine(requested.engine)
    else:
        spec = _choose_spec(task, requested, device, sampling, others, guided, only_here)
    if task.name not in spec.tasks:
        able = ", ".join(engine.name for engine in engines_for(task))
        raise InputError(f"the {spec.name} engine cannot {task.name}: choose one of {able}")
    if spec.tasks[task.name].guided_only and not guided:
        raise InputError(f"the {spec.name} engine adds no colour itself: give `hint` or `reference`")
    choice = spec.resolve(_for_task(spec, task, requested), Store(offline=True))
    loras = spec.preset_of(choice.variant, sampling.quality).loras
    return replace(choice, loras=(*loras, *choice.loras))


def settle_choice(
    requested: ModelChoice, device: DeviceChoice, job: Job, *others: object, only_here: bool = True
) -> ModelChoice:
    """The choice of weights for a job. InputError if any of the settings has an option that the engine lacks.

    `only_here`: choose only engines whose weights are on this disk, unless named; otherwise, as for a plan, choose
    the engine whose weights would be pulled.
    """
    settings = job, job.prompt, device, *others
    choice = choose_engine(job.task, requested, device, job.sampling, settings, guided=job.guided, only_here=only_here)
    spec = find_engine(choice.engine)
    spec.refuse_unused(requested, device, job, job.prompt, *others)
    spec.complete_sampling(job.sampling, choice.variant)
    return choice


def _for_task(spec: EngineSpec, task: Task, requested: ModelChoice) -> ModelChoice:
    """The request for this engine, with the task's own variant and base where none were named."""
    support = spec.tasks[task.name]
    return replace(
        requested, engine=spec.name, variant=requested.variant or support.variant, base=requested.base or support.base
    )


def _choose_spec(
    task: Task,
    requested: ModelChoice,
    device: DeviceChoice,
    sampling: Sampling,
    others: Sequence[object],
    guided: bool,
    only_here: bool,
) -> EngineSpec:
    able = engines_for(task)
    usual = [spec for spec in able if not _is_optional(spec, task)]
    if requested.adapter is not None:
        return recognize_adapter(requested.adapter) or _first_with("adapter", usual)
    if requested.base is not None:
        return _first_with("base", usual)
    ranked = [spec for spec in able if spec.tasks[task.name].rank is not None]
    ranked = [spec for spec in ranked if guided or not spec.tasks[task.name].guided_only]
    ranked = [spec for spec in ranked if spec in usual or _supports_options(spec, task, requested, sampling, others)]
    missing = {spec.name: _find_missing(spec, task, requested) for spec in ranked}
    ranked = [spec for spec in ranked if spec in usual or not missing[spec.name]]
    here = [spec for spec in ranked if not missing[spec.name]]
    if not here:
        wanted = _first_runnable(ranked, device)
        names = " ".join(missing[wanted.name])
        message = f"{task.name} needs weights that are not here: run srcli models pull {names}"
        if only_here:
            raise WeightsError(message)
        log.info(message)
        return wanted
    chosen = _first_runnable(here, device)
    if chosen is not ranked[0]:
        _log_better_engine(ranked[0], missing[ranked[0].name], chosen, task, device)
    elif chosen not in usual:
        log.info(f"using {chosen.title}, the quickest that is here; `quality` best or another `engine` takes longer")
    return chosen


def _first_runnable(engines: list[EngineSpec], device: DeviceChoice) -> EngineSpec:
    """The first engine that suits this machine: any with an accelerator, else one that needs none, if there is one."""
    return next((spec for spec in engines if not spec.needs_accelerator or _has_accelerator(device)), engines[0])


def _is_optional(spec: EngineSpec, task: Task) -> bool:
    return spec.tasks[task.name].optional


def _supports_options(
    spec: EngineSpec, task: Task, requested: ModelChoice, sampling: Sampling, others: Sequence[object]
) -> bool:
    """Whether this engine takes all options that are set, and has a preset for the quality."""
    try:
        variant = spec.resolve(_for_task(spec, task, requested), Store(offline=True)).variant
        spec.refuse_unused(requested, *others)
        spec.complete_sampling(sampling, variant)
    except InputError:
        return False
    return sampling.quality != QUALITIES[-1] or sampling.quality in spec.profile_of(variant).presets


def _first_with(option: str, engines: list[EngineSpec]) -> EngineSpec:
    return next((spec for spec in engines if option in spec.options), engines[0])


def _log_better_engine(
    better: EngineSpec, missing: list[str], chosen: EngineSpec, task: Task, device: DeviceChoice
) -> None:
    """Log which engine would give a better result than the chosen one, and what it takes to use it."""
    if missing:
        if not better.needs_accelerator or _has_accelerator(device):
            size = format_bytes(Store(offline=True).missing_size(missing))
            command = f"srcli models pull {' '.join(missing)}"
            log.info(f"using {chosen.title}; {better.title} makes a better picture: {command} (about {size})")
        return
    hours = _estimate_duration(better, task, device)
    log.info(f"using {chosen.title}; {better.title} makes a better picture, but takes {hours}: `engine` {better.name}")


def _find_missing(spec: EngineSpec, task: Task, requested: ModelChoice) -> list[str]:
    """Entries of weights.lock that this engine needs for the task and that are not on this disk."""
    store = Store(offline=True)
    variant = requested.variant if _is_optional(spec, task) else None
    choice = spec.resolve(
        _for_task(spec, task, ModelChoice(variant=variant, allow_pickle=requested.allow_pickle)), store
    )
    if _is_optional(spec, task):
        return [name for name in spec.entries(choice) if not store.can_open(name, requested.allow_pickle)]
    return [name for name in spec.entries(choice) if not store.has(name)]


def recognize_adapter(adapter: str) -> EngineSpec | None:
    """The engine of this adapter (a name in weights.lock, a file or a folder); None if no engine recognizes it."""
    from srcli.engines.registry import all_engines

    evidence = _gather_evidence(adapter)
    return next((spec for spec in all_engines().values() if spec.recognizes(evidence)), None)


def check_adapter(path: str) -> None:
    """WeightsError if a file or folder of the user's is no adapter that any engine recognizes."""
    files = _list_files(expand_user(path))
    if any(file.suffix in PICKLES for file in files) or recognize_adapter(path) is not None:
        return
    raise WeightsError(f"{path}: holds no adapter of any engine: choose another file or folder")


def _gather_evidence(adapter: str) -> AdapterEvidence:
    store = Store(offline=True)
    entry = store.lock().get(adapter)
    files = store.files_here(entry) if entry else _list_files(expand_user(adapter))
    return AdapterEvidence(entry, tuple(read_header(file) for file in files if file.suffix == SUFFIX))


def _list_files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if is_file(file)) if is_dir(path) else [path] * is_file(path)


def _estimate_duration(spec: EngineSpec, task: Task, device: DeviceChoice) -> str:
    """How long this engine would take here for a picture of FORECAST_SIZE, in words."""
    from srcli.engines.forecast import forecast_run
    from srcli.engines.runtime.device import choose_device
    from srcli.engines.runtime.forecast import format_duration, known_speed

    where = choose_device(replace(device, memory=None))
    choice = spec.resolve(_for_task(spec, task, ModelChoice()), Store(offline=True))
    plan = forecast_run(choice, Job(task=task), FORECAST_SIZE, where)
    duration = format_duration(plan.flop / known_speed(where))
    return f"about {duration} for a result of {plan.result[0]}x{plan.result[1]} here"


def _has_accelerator(device: DeviceChoice) -> bool:
    from srcli.engines.runtime.device import choose_device

    return choose_device(device).accelerated
