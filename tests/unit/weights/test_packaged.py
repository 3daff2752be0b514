"""The weights inside the package are locked like any others: `sha256sum src/srcli/data/*.safetensors` to refresh."""

from __future__ import annotations

from pathlib import Path

import srcli
from srcli.weights.header import hash_weights
from srcli.weights.lock import Entry, File, read_lock
from srcli.weights.overlay import format_lock
from srcli.weights.places import packaged_lock
from srcli.weights.store import Store

DATA = Path(srcli.__file__).parent / "data"


def test_every_packaged_file_is_locked_as_it_is_and_no_other() -> None:
    files = {path.name: File(path.name, path.stat().st_size, hash_weights(path)) for path in DATA.glob("*.safetensors")}
    engines = [entry for entry in read_lock(packaged_lock()).values() if entry.kind == "engine"]
    locked = {path: file for entry in engines for path, file in entry.files.items()}
    made = {
        name.removesuffix(".safetensors"): Entry(
            name=name.removesuffix(".safetensors"),
            kind="engine",
            family="builtin",
            license="apache-2.0",
            title="srcli's own model",
            files={name: file},
        )
        for name, file in files.items()
    }
    assert locked == files, f"put these tables into weights.lock and correct its [end]:\n{format_lock(made)}"


def test_packaged_weights_are_found_and_checked_like_others() -> None:
    store = Store(offline=True)
    for entry in store.lock().values():
        if entry.kind == "engine":
            assert store.has(entry.name)
            assert store.resolve(entry.name, "engine").folder == DATA
