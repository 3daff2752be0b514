"""The weights of a choice that are not on this disk and would have to be downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from srcli.engines.registry import find_engine
from srcli.files import expand_user, is_dir, path_exists
from srcli.settings import ModelChoice
from srcli.weights.families import detect_family, wrong_weights
from srcli.weights.local import list_model_files, no_weights_in
from srcli.weights.lock import HUB_NAME, PICKLES, Entry
from srcli.weights.store import Store

Parts = tuple[str, ...]


def find_missing_weights(choice: ModelChoice, store: Store, more: Sequence[str] = ()) -> list[tuple[Entry, Parts]]:
    """Missing entries of the choice and of `more`, each with the parts that are needed of it (empty: all)."""
    wanted: dict[str, tuple[Entry, set[str]]] = {}
    for entry, parts in _list_needed(choice, store, more):
        wanted.setdefault(entry.name, (entry, set()))[1].update(parts or ("",))
    needed = [(entry, () if "" in parts else tuple(sorted(parts))) for entry, parts in wanted.values()]
    return [(entry, parts) for entry, parts in needed if entry.origin and not store.is_here(entry, parts)]


def check_local_files(choice: ModelChoice, store: Store) -> None:
    """Raises WeightsError for a base model or LoRA of the user's own that cannot be used.

    That is one whose header says that it is something else, or a pickle that was not converted and may not be.
    """
    for name, kind in ((choice.base, "checkpoint"), *((lora.source, "lora") for lora in choice.loras)):
        path = expand_user(name or "")
        if not name or name in store.lock() or not path_exists(path):
            continue
        if path.suffix in PICKLES:
            if not choice.allow_pickle:
                store.resolve(name)
        elif is_dir(path):
            if not list_model_files(path):
                raise no_weights_in(path)
        elif (found := detect_family(path)).kind != kind:
            raise wrong_weights(path, found, f"a {kind}")


def _list_needed(choice: ModelChoice, store: Store, more: Sequence[str]) -> Iterator[tuple[Entry, Parts]]:
    """Entries of the choice and their dependencies. A chosen base replaces the base that an adapter depends on."""
    families = [store.with_dependencies(name) for name in _list_names(choice, store, more)]
    dependencies = {need.name for _, *needs in families for need, _ in needs}
    for (entry, parts), *needs in families:
        if entry.name != choice.base or entry.name not in dependencies:  # else only the parts below are needed
            yield entry, parts
        for need, need_parts in needs:
            if need.kind != "base" or choice.base in (None, need.name):
                yield need, need_parts


def _list_names(choice: ModelChoice, store: Store, more: Sequence[str]) -> list[str]:
    """Lock names and hub ids of the choice. The user's own files need no download; other words raise an error."""
    lock = store.lock()
    usual = [name for name in find_engine(choice.engine).entries(choice) if not choice.adapter or name == choice.base]
    candidates = [(choice.base, "base"), (choice.adapter, "adapter"), *((name, "") for name in usual)]
    candidates += [(lora.source, "lora") for lora in choice.loras]
    candidates += [(name, "damage") for name in more]
    names: dict[str, None] = {}
    for name, kind in candidates:
        if name and (name in lock or not path_exists(expand_user(name))):
            if name not in lock and not HUB_NAME.fullmatch(name):
                store.resolve(name, kind)  # raises an error that says what is wrong
            names[name] = None
    return list(names)
