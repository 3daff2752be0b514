"""The settings of a degradation: ranges, probabilities, order. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from srcli.errors import InputError, unknown_word

Range = tuple[float, float]
SINC = "sinc"
KERNEL_KINDS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
USUAL_KINDS: Mapping[str, float] = MappingProxyType(
    dict(zip(KERNEL_KINDS, (0.45, 0.25, 0.12, 0.03, 0.12, 0.03), strict=True))
)
RESIZE_DIRECTIONS = ("up", "down", "keep")
RANDOM, BICUBIC, NONE = "random", "bicubic", "none"
BACK = (RANDOM, BICUBIC, NONE)
PROBABILITIES = frozenset({"sinc", "blur", "gaussian", "gray", "final_sinc", "clean", "scratches", "dust", "stains"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BlurKernels:
    """The distribution of a stage's blur kernels."""

    sizes: tuple[int, ...] = tuple(range(7, 22, 2))
    kinds: Mapping[str, float] = field(default_factory=lambda: USUAL_KINDS)
    sinc: float = 0.1
    sigma: Range = (0.2, 3.0)
    beta_generalized: Range = (0.5, 4.0)
    beta_plateau: Range = (1.0, 2.0)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.sizes or any(size % 2 == 0 or not 3 <= size <= 21 for size in self.sizes):
            raise InputError(f"kernel sizes {list(self.sizes)} must be odd numbers from 3 to 21")
        check_weights("kinds", self.kinds, KERNEL_KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradationStage:
    """One stage of the chain: blur, resize, noise, JPEG."""

    blur: float = 1.0
    kernels: BlurKernels = field(default_factory=BlurKernels)
    resize: Mapping[str, float]
    factor: Range
    gaussian: float = 0.5
    sigma: Range
    poisson: Range
    gray: float = 0.4
    jpeg: Range

    def __post_init__(self) -> None:
        check_fields(self)
        check_weights("resize", self.resize, RESIZE_DIRECTIONS)
        if not 0 < self.factor[0] <= 1 <= self.factor[1]:
            raise InputError(f"factor {list(self.factor)} must go from below 1 to above 1")
        if not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise InputError(f"jpeg {list(self.jpeg)} must lie between 1 and 100")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintDamage:
    """Damage of old prints: probabilities and ranges of strength."""

    contrast: Range = (0.55, 1.0)
    black: Range = (0.0, 0.2)
    tint: Range = (0.0, 0.25)
    grain: Range = (0.0, 8.0)
    scratches: float = 0.5
    dust: float = 0.6
    stains: float = 0.3

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """The whole chain, from a sharp target to the model's input.

    `back` says how the degraded picture returns to the target's size; `crop` is the side that a final random crop
    leaves; `poisson_levels` the fewest levels that a picture counts as having when Poisson noise is scaled.
    """

    first: DegradationStage
    second: DegradationStage
    final_sinc: float = 0.8
    scale: int = 4
    sharpen_target: bool = False
    back: str = RANDOM
    round_to_8_bits: bool = True
    clean: float = 0.0
    crop: int | None = None
    poisson_levels: int = 32
    damage: PrintDamage | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1 <= self.scale <= 16:
            raise InputError(f"scale {self.scale} must lie between 1 and 16")
        if self.back not in BACK:
            raise unknown_word("back", self.back, BACK)


def check_fields(settings: object) -> None:
    """Check that ranges rise and probabilities are in 0..1. Raises InputError with the field's name."""
    for each in fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, each.name)
        if each.type == "Range" and not 0 <= value[0] <= value[1]:
            raise InputError(f"{each.name} {list(value)} must be two numbers of which the first is not larger")
        if each.name in PROBABILITIES and isinstance(value, float | int) and not 0 <= value <= 1:
            raise InputError(f"{each.name} {value} must lie between 0 and 1")


def check_weights(name: str, weights: Mapping[str, float], known: tuple[str, ...]) -> None:
    """Check that weights have known names, are not negative, and not all zero. Raises InputError."""
    if unknown := sorted(set(weights) - set(known)):
        raise InputError(f"{name} has no {unknown[0]!r}: choose from {', '.join(known)}")
    if any(weight < 0 for weight in weights.values()) or not sum(weights.values()) > 0:
        raise InputError(f"{name} {dict(weights)} must be weights above 0")
