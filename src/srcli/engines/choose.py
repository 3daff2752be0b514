"""Which engine runs, when the user leaves it open. Nothing downloads gigabytes unasked: naming is asking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from srcli.errors import InputError, WeightsError
from srcli.files import expand_user, is_dir, is_file
from srcli.settings import AUTO, DeviceChoice, ModelChoice
from srcli.tasks import Job, Task
from srcli.weights.families import detect_header
from srcli.weights.header import read_header
from srcli.weights.store import Store

BUILTIN, PASD, STABLESR = "builtin", "pasd", "stablesr"
USUAL = (512, 512)


def _silent(text: str) -> None:
    """For those who only ask."""


def choose(task: Task, wish: ModelChoice, device: DeviceChoice, tell: Callable[[str], None] = _silent) -> ModelChoice:
    """The wish with its engine decided, and with the weights that the task brings."""
    if task.needs_base and wish.base is None:
        raise InputError(f"{task.name} needs a base model: give --base-model NAME|FOLDER|FILE|hub-id; {_bases()}")
    engine = wish.engine if wish.engine != AUTO else _decide(task, wish, device, tell)
    if engine not in task.engines:
        raise InputError(f"the {engine} engine cannot {task.name}: choose one of {', '.join(task.engines)}")
    variant, base = task.variants.get(engine), task.bases.get(engine)
    return replace(wish, engine=engine, variant=wish.variant or variant, base=wish.base or base)


def _bases() -> str:
    return "names: " + ", ".join(Store(offline=True).bases())


def _decide(task: Task, wish: ModelChoice, device: DeviceChoice, tell: Callable[[str], None]) -> str:
    if wish.adapter is not None:
        return _of_adapter(wish.adapter)
    if wish.base is not None:
        return PASD
    lacking = _lacking(task)
    if lacking and BUILTIN not in task.engines:
        raise WeightsError(f"{task.name} needs weights that are not here: run srcli models pull {' '.join(lacking)}")
    if BUILTIN not in task.engines:
        return PASD
    if lacking:
        tell(f"using the built-in engine; for a better picture: srcli models pull {' '.join(lacking)}")
        return BUILTIN
    if not _accelerated(device):
        tell(f"using the built-in engine; PASD makes a better picture, but takes {_hours(task, device)}: --engine pasd")
        return BUILTIN
    return PASD


def _lacking(task: Task) -> list[str]:
    """Entries of weights.lock that PASD needs for this task and that are not here."""
    variant, base = task.variants.get(PASD), task.bases.get(PASD)
    names = [f"{PASD}-{variant}" if variant else PASD, *([base] if base else [])]
    store = Store(offline=True)
    return [name for name in names if not store.has(name)]


def _of_adapter(adapter: str) -> str:
    """The engine that this adapter, a name of weights.lock, a file or a folder, was made for."""
    if adapter in Store(offline=True).lock():
        return STABLESR if adapter.startswith(STABLESR) else PASD
    path = expand_user(adapter)
    found = sorted(path.rglob("*.safetensors")) if is_dir(path) else [path]
    headers = [read_header(file) for file in found if file.suffix == ".safetensors" and is_file(file)]
    if any("shape" in header.metadata and "task" in header.metadata for header in headers):
        return BUILTIN
    return STABLESR if any(STABLESR in detect_header(header).kind for header in headers) else PASD


def _hours(task: Task, device: DeviceChoice) -> str:
    """What PASD would take here for a picture of a usual size."""
    from srcli.engines.device import pick
    from srcli.engines.forecast import forecast, lasting, speed

    where = pick(replace(device, memory=None))
    plan = forecast(ModelChoice(engine=PASD, variant=task.variants.get(PASD)), Job(task=task), USUAL, where)
    return f"about {lasting(plan.flop / speed(where))} for a result of {plan.result[0]}x{plan.result[1]} here"


def _accelerated(device: DeviceChoice) -> bool:
    from srcli.engines.device import pick

    return pick(device).accelerated
