"""Which engine runs, when the user leaves it open. Nothing downloads gigabytes unasked: naming is asking."""

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
FORECAST_SIZE = (512, 512)  # pixels of the picture that "how long" is said for

log = logging.getLogger(__name__)


def choose_engine(
    task: Task,
    wish: ModelChoice,
    device: DeviceChoice,
    sampling: Sampling = DEFAULT,
    others: Sequence[object] = (),
    *,
    guided: bool = False,
    only_here: bool = True,
) -> ModelChoice:
    """The wish with its engine decided, and with all weights that the task and the quality bring.

    `others`: settings that hold what else was asked for, which not every engine can do. `guided`: strokes or a
    reference come with the pictures.
    """
    if task.needs_base and wish.base is None:
        raise InputError(f"{task.name} needs a base model: give `base` NAME|FOLDER|FILE|hub-id; {_bases()}")
    if wish.engine != AUTO:
        spec = find_engine(wish.engine)
    else:
        spec = _decide(task, wish, device, sampling, others, guided, only_here)
    if task.name not in spec.tasks:
        able = ", ".join(engine.name for engine in engines_for(task))
        raise InputError(f"the {spec.name} engine cannot {task.name}: choose one of {able}")
    if spec.tasks[task.name].guided_only and not guided:
        raise InputError(f"the {spec.name} engine gives no colour itself: give `hint` or `reference`")
    choice = spec.resolve(_for_task(spec, task, wish), Store(offline=True))
    loras = spec.preset_of(choice.variant, sampling.quality).loras
    return replace(choice, loras=(*loras, *choice.loras))


def settle_choice(
    wish: ModelChoice, device: DeviceChoice, job: Job, *others: object, only_here: bool = True
) -> ModelChoice:
    """The choice of weights for a job. What the engine has no use for, in any of the settings, is refused here.

    `only_here`: weights that nobody named must be on this disk; else those that would be pulled are taken, for a plan.
    """
    asked = job, job.prompt, device, *others
    choice = choose_engine(job.task, wish, device, job.sampling, asked, guided=job.guided, only_here=only_here)
    spec = find_engine(choice.engine)
    spec.refuse_unused(wish, device, job, job.prompt, *others)
    spec.complete_sampling(job.sampling, choice.variant)
    return choice


def _for_task(spec: EngineSpec, task: Task, wish: ModelChoice) -> ModelChoice:
    """The wish for this engine, with the weights that the task needs where none were named."""
    support = spec.tasks[task.name]
    return replace(wish, engine=spec.name, variant=wish.variant or support.variant, base=wish.base or support.base)


def _bases() -> str:
    return "names: " + ", ".join(Store(offline=True).bases())


def _decide(
    task: Task,
    wish: ModelChoice,
    device: DeviceChoice,
    sampling: Sampling,
    others: Sequence[object],
    guided: bool,
    only_here: bool,
) -> EngineSpec:
    able = engines_for(task)
    usual = [spec for spec in able if not _is_optional(spec, task)]
    if wish.adapter is not None:
        return recognize_adapter(wish.adapter) or _first_with("adapter", usual)
    if wish.base is not None:
        return _first_with("base", usual)
    ranked = [spec for spec in able if spec.tasks[task.name].rank is not None]
    ranked = [spec for spec in ranked if guided or not spec.tasks[task.name].guided_only]
    ranked = [spec for spec in ranked if spec in usual or _can_do(spec, task, wish, sampling, others)]
    lacking = {spec.name: _lacking(spec, task, wish) for spec in ranked}
    ranked = [spec for spec in ranked if spec in usual or not lacking[spec.name]]
    here = [spec for spec in ranked if not lacking[spec.name]]
    if not here:
        wanted = _first_that_runs(ranked, device)
        names = " ".join(lacking[wanted.name])
        told = f"{task.name} needs weights that are not here: run srcli models pull {names}"
        if only_here:
            raise WeightsError(told)
        log.info(told)
        return wanted
    chosen = _first_that_runs(here, device)
    if chosen is not ranked[0]:
        _tell_better(ranked[0], lacking[ranked[0].name], chosen, task, device)
    elif chosen not in usual:
        log.info(f"using {chosen.title}, the quickest that is here; `quality` best or another `engine` takes longer")
    return chosen


def _first_that_runs(engines: list[EngineSpec], device: DeviceChoice) -> EngineSpec:
    """The first that does without an accelerator, unless there is one; the first where all want one."""
    return next((spec for spec in engines if not spec.needs_accelerator or _accelerated(device)), engines[0])


def _is_optional(spec: EngineSpec, task: Task) -> bool:
    return spec.tasks[task.name].optional


def _can_do(spec: EngineSpec, task: Task, wish: ModelChoice, sampling: Sampling, others: Sequence[object]) -> bool:
    """Whether all that was asked for means something to this engine, and the quality can be had there."""
    try:
        variant = spec.resolve(_for_task(spec, task, wish), Store(offline=True)).variant
        spec.refuse_unused(wish, *others)
        spec.complete_sampling(sampling, variant)
    except InputError:
        return False
    return sampling.quality != QUALITIES[-1] or sampling.quality in spec.profile_of(variant).presets


def _first_with(option: str, engines: list[EngineSpec]) -> EngineSpec:
    return next((spec for spec in engines if option in spec.options), engines[0])


def _tell_better(better: EngineSpec, lacking: list[str], chosen: EngineSpec, task: Task, device: DeviceChoice) -> None:
    """What would have to be done to get a better picture than the chosen engine makes."""
    if lacking:
        if not better.needs_accelerator or _accelerated(device):
            size = format_bytes(Store(offline=True).lacking_size(lacking))
            command = f"srcli models pull {' '.join(lacking)}"
            log.info(f"using {chosen.title}; {better.title} makes a better picture: {command} (about {size})")
        return
    hours = _estimate(better, task, device)
    log.info(f"using {chosen.title}; {better.title} makes a better picture, but takes {hours}: `engine` {better.name}")


def _lacking(spec: EngineSpec, task: Task, wish: ModelChoice) -> list[str]:
    """Entries of weights.lock that this engine needs for the task and that are not here."""
    store = Store(offline=True)
    variant = wish.variant if _is_optional(spec, task) else None
    asked = ModelChoice(variant=variant, allow_pickle=wish.allow_pickle)
    choice = spec.resolve(_for_task(spec, task, asked), store)
    if _is_optional(spec, task):
        return [name for name in spec.entries(choice) if not store.opens(name, wish.allow_pickle)]
    return [name for name in spec.entries(choice) if not store.has(name)]


def recognize_adapter(adapter: str) -> EngineSpec | None:
    """The engine that this adapter, a name of weights.lock, a file or a folder, was made for."""
    evidence = _evidence(adapter)
    return next((spec for spec in _engines() if spec.recognizes(evidence)), None)


def refuse_no_adapter(path: str) -> None:
    """An error where a file or folder of the user's holds no networks that any engine takes as an adapter."""
    files = _files_of(expand_user(path))
    if any(file.suffix in PICKLES for file in files) or recognize_adapter(path) is not None:
        return
    raise WeightsError(f"{path}: holds no networks of an adapter: choose what an engine was trained into")


def _engines() -> list[EngineSpec]:
    from srcli.engines.registry import all_engines

    return list(all_engines().values())


def _evidence(adapter: str) -> AdapterEvidence:
    store = Store(offline=True)
    entry = store.lock().get(adapter)
    files = store.files_here(entry) if entry else _files_of(expand_user(adapter))
    return AdapterEvidence(entry, tuple(read_header(file) for file in files if file.suffix == SUFFIX))


def _files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if is_file(file)) if is_dir(path) else [path] * is_file(path)


def _estimate(spec: EngineSpec, task: Task, device: DeviceChoice) -> str:
    """What this engine would take here for a picture of a usual size."""
    from srcli.engines.forecast import forecast_run
    from srcli.engines.runtime.device import choose_device
    from srcli.engines.runtime.forecast import format_duration, known_speed

    where = choose_device(replace(device, memory=None))
    choice = spec.resolve(_for_task(spec, task, ModelChoice()), Store(offline=True))
    plan = forecast_run(choice, Job(task=task), FORECAST_SIZE, where)
    duration = format_duration(plan.flop / known_speed(where))
    return f"about {duration} for a result of {plan.result[0]}x{plan.result[1]} here"


def _accelerated(device: DeviceChoice) -> bool:
    from srcli.engines.runtime.device import choose_device

    return choose_device(device).accelerated
