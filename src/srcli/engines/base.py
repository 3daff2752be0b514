"""The two halves of an engine: `EngineSpec`, readable without its libraries, and `Engine`, the loaded model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from srcli.engines.calibration import OtherVersions, vary_seed
from srcli.engines.runtime.oom_fallback import MemorySavings
from srcli.errors import InputError
from srcli.settings import ENGINE_OPTIONS, QUALITIES, LoraChoice, ModelChoice, Prompt, Sampling, unused_option
from srcli.tasks import Job, Task
from srcli.weights.families import detect_header

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from srcli.engines.runtime.device import Device
    from srcli.engines.runtime.forecast import Forecast
    from srcli.sampling.noise import NoiseField
    from srcli.sampling.sampler import Denoiser, Scheduler, TileWeight
    from srcli.sampling.tiling import Tile
    from srcli.weights.header import Header
    from srcli.weights.lock import Entry
    from srcli.weights.store import Store

PixelSize = tuple[int, int]  # width, height


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSupport:
    """How an engine supports one task.

    `rank`: `auto` tries engines in rising order; None: only used when named. `variant` and `base`: the weights for
    this task unless the user names others. `optional`: used if its weights are on this disk, and never suggested.
    `guided_only`: useless without colour strokes or a reference picture.
    """

    rank: int | None = None
    optional: bool = False
    guided_only: bool = False
    variant: str | None = None
    base: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """What a `--quality` changes in an engine's defaults, and the LoRAs that it needs."""

    sampling: Sampling = Sampling()
    loras: tuple[LoraChoice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantProfile:
    """An engine's defaults with one variant of its weights. `presets`: by quality; "standard" has none."""

    defaults: Sampling
    presets: Mapping[str, Preset] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AdapterEvidence:
    """What is known of an `--adapter` before it is opened: its weights.lock entry and its safetensors headers."""

    entry: Entry | None
    headers: tuple[Header, ...]

    def is_one_of(self, names: Collection[str]) -> bool:
        """Whether it is one of these entries of weights.lock, or another form of one."""
        return self.entry is not None and bool({self.entry.name, self.entry.form_of} & set(names))

    def is_of(self, kinds: Collection[str], names: Collection[str], family: str) -> bool:
        """Whether its headers are of one of these kinds. Nothing but an entry is known of a pickle: whether it is one
        of these `names`, or the user added it as a model of this family."""
        if self.headers:
            return any(detect_header(header).kind in kinds for header in self.headers)
        added = self.entry is not None and self.entry.local is not None and self.entry.family == family
        return added or self.is_one_of(names)


Variant = TypeVar("Variant")


def find_variant(variants: Mapping[str, Variant], name: str | None, engine: str) -> Variant:
    """The variant of this name, or the first one without a name. Raises InputError for an unknown name."""
    if name and name not in variants:
        raise InputError(f"`variant` {name!r} is unknown to {engine}: choose one of {', '.join(variants)}")
    return variants[name or next(iter(variants))]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """All that the program knows of an engine before loading it. Adding an engine takes one folder and one line.

    The folder, `engines/NAME/`, holds:

    - `spec.py`: one `EngineSpec`, named SPEC. It imports no torch, diffusers or transformers; its functions import
      the modules below when they are called.
    - `engine.py`: a class with the methods of `Engine`, and the function that loads it.
    - `weights.py`: builds the networks from verified files; networks of our own are in `models/`.
    - `forecast.py`: FLOP and memory of a run, from measured constants.

    The line is in `engines/registry.py`; another package registers its SPEC in the entry-point group
    `srcli.engines` instead. Everything else (the choice of `auto`, `--help`, `--explain`, `doctor`, the resume
    recipe, the README's table) is read from the spec. Engines over VAE latents share `engines/latent/`: codec,
    bases, prompts, schedulers, forecast. All share `engines/runtime/`: device, memory plan, out-of-memory fallback.

    A spec is used in this order:

    1. `tasks` and `recognizes` decide which engine runs.
    2. `resolve` completes the choice of weights. After it the variant is known, as far as possible without loading;
       nothing asks for defaults before.
    3. `complete_sampling` applies the user's settings to the variant's profile and refuses options that the engine
       does not take; `check` refuses values that sampling would refuse only after minutes of loading.
    4. `forecast` plans a run, or `load` loads the engine.
    """

    name: str  # for `--engine`
    title: str  # in sentences: "PASD"
    about: str  # README: what it is, in Markdown
    needs: str  # README: what it takes to run it
    tasks: Mapping[str, TaskSupport]  # by task name
    profile: VariantProfile
    variants: Mapping[str, VariantProfile] = field(default_factory=dict)  # those that differ from `profile`
    variant_names: tuple[str, ...] = ()  # values of `--variant`
    options: frozenset[str] = frozenset()  # the settings.ENGINE_OPTIONS that it takes
    unset: frozenset[str] = frozenset()  # fields of Sampling that it takes although they have no default
    needs_accelerator: bool = True  # without an accelerator, `auto` prefers engines that need none
    load: Callable[[ModelChoice, Device, Store], Engine]
    forecast: Callable[[ModelChoice, Job, PixelSize, Device], Forecast]  # the job's sampling is complete
    entries: Callable[[ModelChoice], tuple[str, ...]] = lambda choice: ()  # of weights.lock, that the choice needs
    shared_entries: tuple[str, ...] = ()  # others that it may open, for example for configurations that a file lacks
    recognizes: Callable[[AdapterEvidence], bool] = lambda evidence: False
    resolve: Callable[[ModelChoice, Store], ModelChoice] = lambda choice, store: choice
    check: Callable[[Sampling], None] = lambda sampling: None
    # What the engine measures in a picture (H, W, 3), for `--explain`: only where this is quick.
    inspect: Callable[[ModelChoice, Job, Device, NDArray[Any]], Mapping[str, float]] | None = None
    other_versions: Callable[[Job], OtherVersions] = vary_seed  # for the uncertainty map (option "mapped")

    def profile_of(self, variant: str | None) -> VariantProfile:
        return self.variants.get(variant or "", self.profile)

    def name_of(self, variant: str | None) -> str:
        """The engine's name, with the variant if that has a profile of its own."""
        return f"{self.name}-{variant}" if variant in self.variants else self.name

    def preset_of(self, variant: str | None, quality: str | None) -> Preset:
        """The preset of a quality. An engine without a "best" preset uses the standard one."""
        presets = self.profile_of(variant).presets
        if quality == QUALITIES[0] and quality not in presets:
            raise InputError(f"`quality` {quality} means nothing to the {self.name_of(variant)} engine: leave it out")
        return presets.get(quality or "", Preset())

    def complete_sampling(self, sampling: Sampling, variant: str | None) -> Sampling:
        """The defaults, overridden by the preset and then by `sampling`; InputError for an unused option."""
        defaults, given = self.profile_of(variant).defaults, sampling.given()
        for name in given:
            if getattr(defaults, name) is None and name not in self.unset:
                raise unused_option(name, self.name_of(variant))
        complete = replace(defaults, **{**self.preset_of(variant, sampling.quality).sampling.given(), **given})
        self.check(complete)
        return complete

    def takes(self, field: str) -> bool:
        """Whether the engine uses this field of the settings, with any of its variants."""
        if field in ENGINE_OPTIONS:
            return field in self.options
        if field not in Sampling.__dataclass_fields__ or field == "quality":
            return True
        profiles = self.profile, *self.variants.values()
        return field in self.unset or any(getattr(profile.defaults, field) is not None for profile in profiles)

    def refuse_unused(self, *settings: object) -> None:
        """InputError if any of these settings changes an option that the engine does not use."""
        for group in settings:
            for name, value in group.__dataclass_fields__.items():  # type: ignore[attr-defined]
                changed = getattr(group, name) != value.default
                if changed and name in ENGINE_OPTIONS and name not in self.options:
                    raise unused_option(ENGINE_OPTIONS[name], self.name)


@dataclass(frozen=True, slots=True)
class Request:
    """What an engine is to do with one picture."""

    task: Task
    sampling: Sampling  # complete: no default is missing
    prompt: Prompt
    noise: NoiseField
    savings: MemorySavings = MemorySavings()
    findings: Mapping[str, float] = field(default_factory=dict)  # what a Surveyor measured in the whole picture


@dataclass(frozen=True, slots=True)
class Canvas:
    """A picture ready for sampling, with everything computed that does not depend on the step.

    An engine that does not sample has no denoiser and no scheduler, and does its work in `finish`.
    """

    start: Tensor
    hint: Tensor
    denoiser: Denoiser | None
    scheduler: Scheduler | None
    finish: Callable[[Tensor], Tensor]  # sampled canvas -> RGB (1, 3, H, W) in 0..1
    tile_weight: TileWeight | None = None  # None: the Gaussian of PASD and StableSR


@runtime_checkable
class Surveyor(Protocol):
    """An engine that measures a whole picture before it processes the picture's blocks."""

    def survey(self, hint: NDArray[Any], request: Request) -> Request:
        """The request with `findings` filled in. `hint` is (H, W, 3) integers in the engine's working size."""


class Engine(Protocol):
    """A loaded model family."""

    @property
    def spec(self) -> EngineSpec: ...

    @property
    def factor(self) -> int:
        """Side of the result per side of the hint: 4 for the built-in engine, 1 if the hint has the final size."""

    @property
    def block(self) -> int | None:
        """Largest side, in hint pixels, that is processed at once; None: no limit."""

    @property
    def halo(self) -> int:
        """Hint pixels around a block that influence its result."""

    @property
    def supported_savings(self) -> Collection[str]:
        """Names of the fields of MemorySavings that it can apply."""

    @property
    def variant(self) -> str | None:
        """The variant of its weights, if there are several."""

    def passes(self, size: PixelSize, target: PixelSize) -> list[PixelSize]:
        """Result sizes of the passes over the picture; the last is `target`. Most engines need one pass."""

    def working_size(self, size: PixelSize, target: PixelSize, request: Request) -> PixelSize:
        """Size of the hint for a pass from a picture of `size` to a result of `target`."""

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        """Tiles of a canvas of this height and width, and how many share a call; None: no tiling."""

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        """Compute everything that does not depend on the step. `hint`: (1, 3, H, W) integers, on the CPU."""

    def provenance(self) -> Mapping[str, str]:
        """The loaded models with their hashes and licences, for the result's metadata."""


@dataclass(frozen=True, kw_only=True)
class Unblocked:
    """Base of engines that prepare a hint of any size as a whole. One pass, unless an engine overrides `passes`."""

    factor: int = 1
    block: int | None = None
    halo: int = 0

    def passes(self, size: PixelSize, target: PixelSize) -> list[PixelSize]:
        return [target]


@dataclass(frozen=True, kw_only=True)
class WholePicture(Unblocked):
    """Base of engines that process a whole picture in the result's size and do not sample."""

    supported_savings: Collection[str] = ()

    def working_size(self, size: PixelSize, target: PixelSize, request: Request) -> PixelSize:
        return target

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        return None
