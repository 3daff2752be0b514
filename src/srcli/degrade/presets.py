"""The degradations of published models by name, and custom ones from TOML files."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

from srcli.degrade.settings import BICUBIC, NONE, BlurKernels, Degradation, DegradationStage, PrintDamage
from srcli.errors import InputError
from srcli.files import expand_user, is_file

S = TypeVar("S")
DOWN_MOSTLY = MappingProxyType({"up": 0.2, "down": 0.7, "keep": 0.1})
DOWN_OFTEN = MappingProxyType({"up": 0.3, "down": 0.4, "keep": 0.3})

PASD = Degradation(
    first=DegradationStage(
        resize=DOWN_MOSTLY, factor=(0.3, 1.5), sigma=(1.0, 15.0), poisson=(0.05, 2.0), jpeg=(60.0, 95.0)
    ),
    second=DegradationStage(
        blur=0.5,
        kernels=BlurKernels(sigma=(0.2, 1.5)),
        resize=DOWN_OFTEN,
        factor=(0.6, 1.2),
        sigma=(1.0, 12.0),
        poisson=(0.05, 1.0),
        jpeg=(60.0, 100.0),
    ),
)
_MILD = BlurKernels(sigma=(0.2, 1.5), beta_generalized=(0.5, 2.0), beta_plateau=(1.0, 1.5))
STABLESR = replace(
    PASD,
    first=replace(PASD.first, kernels=_MILD),
    second=replace(PASD.second, kernels=replace(_MILD, sigma=(0.2, 1.0))),
    sharpen_target=True,
    back=BICUBIC,
    round_to_8_bits=False,
    clean=0.01,
)
REALESRGAN = Degradation(
    first=replace(PASD.first, factor=(0.15, 1.5), sigma=(1.0, 30.0), poisson=(0.05, 3.0), jpeg=(30.0, 95.0)),
    second=replace(PASD.second, blur=0.8, factor=(0.3, 1.2), sigma=(1.0, 25.0), poisson=(0.05, 2.5), jpeg=(30.0, 95.0)),
    sharpen_target=True,
    back=NONE,
)
OLD_PHOTO = Degradation(
    first=replace(PASD.first, factor=(0.4, 1.2), sigma=(1.0, 12.0), jpeg=(70.0, 98.0)),
    second=replace(PASD.second, factor=(0.7, 1.2), sigma=(1.0, 8.0), jpeg=(60.0, 98.0)),
    scale=2,
    damage=PrintDamage(),
)
PRESETS: Mapping[str, Degradation] = MappingProxyType(
    {"pasd": PASD, "stablesr": STABLESR, "realesrgan": REALESRGAN, "old-photo": OLD_PHOTO}
)


def find_degradation(name: str, others: Iterable[str] = ()) -> Degradation:
    """A preset by name, or a preset with the changes of a TOML file. Raises InputError, which also names `others`."""
    if name in PRESETS:
        return PRESETS[name]
    path = expand_user(name)
    if not is_file(path):
        names = ", ".join((*others, *PRESETS))
        raise InputError(f"no degradation {name!r}: choose one of {names}, or give a TOML file")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error
    base = table.pop("preset", "pasd")
    if base not in PRESETS:
        raise InputError(f"{path}: no preset {base!r}: choose one of {', '.join(PRESETS)}")
    try:
        return replace_settings(PRESETS[base], table)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def replace_settings(settings: S, table: Mapping[str, Any]) -> S:
    """The settings with a table's values. Raises InputError for unknown names."""
    known = {each.name for each in fields(settings)}  # type: ignore[arg-type]
    if unknown := sorted(set(table) - known):
        raise InputError(f"no setting {unknown[0]!r}: choose from {', '.join(sorted(known))}")
    return replace(
        settings,
        **{  # type: ignore[type-var]
            name: _value(name, getattr(settings, name), new) for name, new in table.items()
        },
    )


def _value(name: str, old: Any, new: Any) -> Any:
    """Convert `new` to the type of `old`."""
    if name == "damage":
        return (
            replace_settings(old or PrintDamage(), new) if isinstance(new, Mapping) else PrintDamage() if new else None
        )
    if is_dataclass(old):
        return replace_settings(old, _as(name, new, Mapping))
    if isinstance(old, Mapping):
        return MappingProxyType({key: _number(f"{name}.{key}", v) for key, v in _as(name, new, Mapping).items()})
    if isinstance(old, tuple):
        return _tuple(name, old, _as(name, new, list))
    if isinstance(old, bool | str):
        return _as(name, new, type(old))
    if isinstance(old, int) or name == "crop":
        return _as(name, new, int)
    return _number(name, new)


def _tuple(name: str, old: tuple[Any, ...], new: list[Any]) -> tuple[Any, ...]:
    if name == "sizes":
        return tuple(_as(name, size, int) for size in new)
    if len(new) != len(old):
        raise InputError(f"{name} must be {len(old)} numbers")
    return tuple(_number(name, value) for value in new)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name} must be a number")
    return float(value)


def _as(name: str, value: Any, kind: Any) -> Any:
    words = {Mapping: "a table", list: "a list", bool: "true or false", str: "text", int: "a whole number"}
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{name} must be {words[kind]}")
    return value
