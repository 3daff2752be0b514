"""Golden cases found by the names of their files, in this folder or in the one SRCLI_GOLDEN names.

A folder holds `<engine>/vectors/<kind>*.safetensors` with an optional `.json` of the same name, beside
`<engine>/tiny`, `<engine>/manifest` and whatever else the engine's vectors speak of. Tests name kinds only.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

HERE = Path(__file__).parent
ROOT = Path(os.environ.get("SRCLI_GOLDEN") or HERE).resolve()
READ = ("vectors", "manifest", ".")
patterns: set[tuple[str, str, str]] = set()


@dataclass(frozen=True)
class Case:
    """One file of vectors, or its json, or both: they share a name."""

    engine: str
    folder: str
    name: str

    @property
    def root(self) -> Path:
        """The engine's folder, where tiny models lie."""
        return ROOT / self.engine

    def file(self, suffix: str) -> Path:
        return self.root / self.folder / f"{self.name}{suffix}"

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        with safe_open(self.file(".safetensors"), "pt") as held:
            return {key: held.get_tensor(key) for key in held.keys()}  # noqa: SIM118 (not a mapping)

    @cached_property
    def notes(self) -> Mapping[str, Any]:
        """The file's own metadata (strings), then what its json says."""
        found: dict[str, Any] = {}
        if self.file(".safetensors").exists():
            with safe_open(self.file(".safetensors"), "pt") as held:
                found |= held.metadata() or {}
        if self.file(".json").exists():
            found |= json.loads(self.file(".json").read_text(encoding="utf-8"))
        return found

    def groups(self, end: str) -> list[str]:
        """The prefixes of all keys that close with `end`, in the order of their names."""
        return sorted(key.removesuffix(end) for key in self.tensors if key.endswith(end))

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below `prefix`, which their names lose."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def names(engine: str, folder: str) -> list[str]:
    """Every case of a folder, each named once though it may have a tensor file and a json."""
    found = (ROOT / engine / folder).glob("*.[js]*")
    return sorted({path.name.removesuffix(path.suffix) for path in found if path.is_file()})


def cases(engine: str, kind: str, folder: str = "vectors") -> list[Case]:
    """The cases whose name matches `kind`, a glob; from now on the kind counts as read."""
    patterns.add((engine, folder, kind))
    return [Case(engine, folder, name) for name in names(engine, folder) if fnmatch(name, kind)]


def each(engine: str, kind: str, folder: str = "vectors") -> pytest.MarkDecorator:
    """Run the test once for each case of the kind; without one it is skipped under the kind's name."""
    found = cases(engine, kind, folder)
    marked = [pytest.param(case, id=case.name) for case in found]
    return pytest.mark.parametrize("case", marked or [absent(kind)])


def each_group(engine: str, kind: str, split: Callable[[Case], list[str]]) -> pytest.MarkDecorator:
    """Run the test once for each part of each case, as `split` names the parts."""
    found = [(case, part) for case in cases(engine, kind) for part in split(case)]
    marked = [pytest.param(case, part, id=f"{case.name}-{part.strip('.')}") for case, part in found]
    return pytest.mark.parametrize(("case", "part"), marked or [absent(kind, 2)])


def absent(kind: str, width: int = 1) -> Any:
    """A parameter that only says that no file of this kind is here. The project's own folder lacks none."""
    if HERE.resolve() == ROOT:
        raise FileNotFoundError(f"no {kind} in {ROOT}")
    skip = pytest.mark.skip(reason=f"no {kind} in {ROOT}")
    return pytest.param(*[None] * width, id=f"no-{kind}", marks=skip)


def unread(engine: str) -> list[str]:
    """Files of the folder that no kind of any test covers."""
    left = []
    for folder in READ:
        kinds = [kind for owner, place, kind in patterns if (owner, place) == (engine, folder)]
        found = names(engine, folder)
        left += [f"{folder}/{name}" for name in found if not any(fnmatch(name, kind) for kind in kinds)]
    return left


def off_by(got: Tensor, want: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    assert got.shape == want.shape, f"shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    got, want = got.detach().double(), want.double()
    assert torch.isfinite(got).all(), "not finite"
    return float((got - want).abs().max() / want.abs().max().clamp(min=1e-30))


def picture(levels: Tensor) -> Tensor:
    """An 8-bit picture (HWC or BCHW) as a batch in 0..1."""
    batch = levels.permute(2, 0, 1)[None] if levels.ndim == 3 else levels
    return batch.float() / 255
