"""All engines by name. Specs are imported on first use; a spec imports no heavy library."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from srcli.engines.base import EngineSpec
from srcli.errors import InputError, unknown_word
from srcli.settings import AUTO, ModelChoice
from srcli.tasks import Task

GROUP = "srcli.engines"  # the entry-point group in which other packages register engines
OWN = (
    EntryPoint("builtin", "srcli.engines.builtin.spec:SPEC", GROUP),
    EntryPoint("pasd", "srcli.engines.pasd.spec:SPEC", GROUP),
    EntryPoint("onestep", "srcli.engines.onestep.spec:SPEC", GROUP),
    EntryPoint("ddcolor", "srcli.engines.ddcolor.spec:SPEC", GROUP),
    EntryPoint("manual", "srcli.engines.manual.spec:SPEC", GROUP),
    EntryPoint("stablesr", "srcli.engines.stablesr.spec:SPEC", GROUP),
    EntryPoint("sr3", "srcli.engines.sr3.spec:SPEC", GROUP),
)


@lru_cache(maxsize=1)
def all_engines() -> dict[str, EngineSpec]:
    """All engines, srcli's own first. An engine of another package cannot replace one of them."""
    engines: dict[str, EngineSpec] = {}
    for point in (*OWN, *entry_points(group=GROUP)):
        spec = point.load()
        if not isinstance(spec, EngineSpec):
            raise InputError(f"{point.value} is registered as an engine and is not an EngineSpec: remove that package")
        engines.setdefault(spec.name, spec)
    return engines


def find_engine(name: str) -> EngineSpec:
    """The engine with this name; InputError if there is none."""
    try:
        return all_engines()[name]
    except KeyError:
        raise unknown_word("`engine`", name, (AUTO, *all_engines())) from None


def engines_for(task: Task) -> list[EngineSpec]:
    """Engines that support a task: those that `auto` may choose first, by rank."""

    def key(spec: EngineSpec) -> tuple[bool, int]:
        rank = spec.tasks[task.name].rank
        return rank is None, rank or 0

    return sorted((spec for spec in all_engines().values() if task.name in spec.tasks), key=key)


def entries_of(choice: ModelChoice) -> set[str]:
    """Names in weights.lock that the engine may open for this choice, besides those that the choice names."""
    spec = find_engine(choice.engine)
    return {*spec.entries(choice), *spec.shared_entries}
