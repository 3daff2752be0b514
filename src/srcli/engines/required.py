"""What a run would fetch: the weights of its choice that are not on this disk."""

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


def find_lacking(choice: ModelChoice, store: Store, more: Sequence[str] = ()) -> list[tuple[Entry, Parts]]:
    """Entries of the choice and `more` that are not here, each with the parts needed of it (none: all)."""
    wanted: dict[str, tuple[Entry, set[str]]] = {}
    for entry, parts in _list_needed(choice, store, more):
        wanted.setdefault(entry.name, (entry, set()))[1].update(parts or ("",))
    found = [(entry, () if "" in parts else tuple(sorted(parts))) for entry, parts in wanted.values()]
    return [(entry, parts) for entry, parts in found if entry.origin and not store.is_here(entry, parts)]


def check_local_files(choice: ModelChoice, store: Store) -> None:
    """Raises WeightsError for a base model or LoRA of the user's own that is something else, by its header alone."""
    for name, kind in ((choice.base, "checkpoint"), *((lora.source, "lora") for lora in choice.loras)):
        path = expand_user(name or "")
        if not name or name in store.lock() or path.suffix in PICKLES or not path_exists(path):
            continue
        if is_dir(path):
            if not list_model_files(path):
                raise no_weights_in(path)
        elif (found := detect_family(path)).kind != kind:
            raise wrong_weights(path, found, f"a {kind}")


def _list_needed(choice: ModelChoice, store: Store, more: Sequence[str]) -> Iterator[tuple[Entry, Parts]]:
    """Entries of the choice with what they need. A base that was chosen takes the place of any that one needs."""
    families = [store.family(name) for name in _names(choice, store, more)]
    lent = {need.name for _, *needs in families for need, _ in needs}
    for (entry, parts), *needs in families:
        if entry.name != choice.base or entry.name not in lent:  # of a base that an adapter needs only those parts
            yield entry, parts
        for need, need_parts in needs:
            if need.kind != "base" or choice.base in (None, need.name):
                yield need, need_parts


def _names(choice: ModelChoice, store: Store, more: Sequence[str]) -> list[str]:
    """Names of the lock, and hub ids: the user's files and folders need nothing. Other words are refused."""
    lock = store.lock()
    usual = [name for name in find_engine(choice.engine).entries(choice) if not choice.adapter or name == choice.base]
    given = [(choice.base, "base"), (choice.adapter, "adapter"), *((name, "") for name in usual)]
    given += [(lora.source, "lora") for lora in choice.loras]
    given += [(name, "damage") for name in more]
    found: dict[str, None] = {}
    for name, kind in given:
        if name and (name in lock or not path_exists(expand_user(name))):
            if name not in lock and not HUB_NAME.fullmatch(name):
                store.resolve(name, kind)  # says what is wrong with it
            found[name] = None
    return list(found)
