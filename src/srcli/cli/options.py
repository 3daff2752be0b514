"""The options of the picture commands: one row for each field of the settings that the command line offers.

Type, choices and default are those of the field; a row adds what only the command line needs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from keyword import iskeyword
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer

from srcli.batch.settings import InputOptions, OutputOptions, RunOptions
from srcli.cli import complete
from srcli.errors import InputError
from srcli.settings import (
    MAP_SEEDS,
    DeviceChoice,
    LoraChoice,
    ModelChoice,
    Prompt,
    Repair,
    Sampling,
    TargetSize,
    size_in_bytes,
)
from srcli.target_sizes import parse_fit
from srcli.tasks import TASKS, Job

Settings = TypeVar("Settings")
ALL_TASKS = tuple(TASKS)
COLOR_TASKS = ("colorize",)
ENLARGE, REDRAW = ("upscale", "restore-old-photo"), ("stylize", "colorize")


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """Settings that only the command line has."""

    overwrite: bool = False
    skip_existing: bool = False
    prompt_file: str | None = None
    dry_run: bool = False
    explain: bool = False
    as_json: bool = False
    print0: bool = False
    quiet: bool = False
    verbose: bool = False
    yes: bool = False


@dataclass(frozen=True)
class Option:
    """The option for one field of the settings."""

    field: str
    help: str
    flag: str = ""  # if it differs from the field's name
    alias: str = ""  # a second flag: short, or an older name
    value: str = ""  # the placeholder for what follows the flag
    default: str = ""  # in words, if the field's default is None
    tasks: tuple[str, ...] = ALL_TASKS  # that it applies to
    common: tuple[str, ...] = ()  # tasks whose short help shows it
    like: str = ""  # another field: engines that take that field take this option
    type: Any = None  # of the typed value, if `parse` converts it
    parse: Callable[[Any], Any] | None = None
    names: Callable[[str], list[str]] | None = None  # completions of the typed beginning

    @property
    def long(self) -> str:
        return self.flag or "--" + self.field.replace("_", "-")

    @property
    def parameter(self) -> str:
        """The name under which a command gets the value."""
        name = self.long.removeprefix("--").replace("-", "_")
        return f"{name}_" if iskeyword(name) else name

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"SRCLI_{self.long.removeprefix('--').replace('-', '_').upper()}"


def _parse_interval(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"`guidance_interval` {text!r} is not FROM,TO: try 0.1,0.8") from error
    return low, high


TOPICS: Mapping[type, str] = {
    InputOptions: "Input",
    OutputOptions: "Output",
    TargetSize: "Size",
    ModelChoice: "Models",
    Prompt: "Prompt",
    Sampling: "Picture",
    Job: "Picture",
    Repair: "Repair",
    DeviceChoice: "Machine",
    RunOptions: "Run",
    CommandOptions: "Run",
}

OPTIONS: Mapping[type, tuple[Option, ...]] = {
    OutputOptions: (
        Option(
            "path",
            "File, folder, or - for standard output.",
            flag="--output",
            alias="-o",
            value="PATH",
            default="beside each input",
            common=ALL_TASKS,
        ),
        Option(
            "format",
            "png, jpeg, webp, tiff, ...",
            value="NAME",
            default="as the input",
            common=ALL_TASKS,
            names=complete.complete_formats,
        ),
        Option("quality", "Of JPEG, WebP and AVIF files, 1 to 100.", flag="--file-quality", default="95, AVIF 90"),
        Option("suffix", "Added to the result's name.", value="TEXT", default="_x4, _restored, ..."),
        Option("on_exists", "What to do if a result exists."),
        Option("strip", "Drop the source's metadata, but not its resolution."),
        Option("strip_gps", "Drop the place from the metadata."),
        Option("preview", "Picture file that shows the result while it is computed.", value="FILE"),
        Option(
            "map",
            "PNG that shows where the result is a guess; or a folder.",
            value="PATH",
            like="mapped",
        ),
    ),
    InputOptions: (
        Option("recursive", "Folders within folders too.", alias="-r", common=ALL_TASKS),
        Option("listed", "Read the names of inputs from a file, or - for stdin.", flag="--from", value="FILE"),
        Option("null", "Names in that list end with NUL.", alias="-0"),
        Option("max_pixels", "Largest picture to open, in pixels."),
        Option("frames", "What to do with a file of several frames or pages."),
        Option("allow_truncated", "Read what is left of a truncated file."),
        Option(
            "mask",
            "Mask of the damage, white on black; a folder of masks; or auto: find the damage.",
            value="PATH",
            common=("restore-old-photo",),
        ),
        Option(
            "hint",
            "A copy with coloured strokes, or strokes on transparency; or a folder of such files.",
            value="PATH",
            tasks=COLOR_TASKS,
            common=COLOR_TASKS,
        ),
        Option(
            "reference",
            "A picture whose colours to use; or a folder of such pictures.",
            value="PATH",
            tasks=COLOR_TASKS,
            common=COLOR_TASKS,
        ),
    ),
    TargetSize: (
        Option("scale", "Enlargement factor.", alias="-s", default="{scale:g}", common=ALL_TASKS),
        Option("width", "Width of the result, in pixels."),
        Option("height", "Height of the result, in pixels."),
        Option("long_side", "Longer side of the result, in pixels."),
        Option("fit", "Largest size of the result, in pixels.", value="WxH", type=str, parse=parse_fit),
        Option(
            "to",
            "Use of the result: 4k, 8k, a4@300 (paper@dpi) or 30x40cm@300dpi.",
            value="SIZE",
            common=ENLARGE,
            names=complete.complete_target_sizes,
        ),
    ),
    ModelChoice: (
        Option("engine", "The models to use.", value="NAME", common=ALL_TASKS, names=complete.complete_engines),
        Option("variant", "Variant of the engine's weights.", value="NAME", names=complete.complete_variants),
        Option(
            "base",
            "Base model, which is the style: NAME, FOLDER, FILE.safetensors or hub-id[@revision].",
            flag="--base-model",
            value="NAME",
            common=REDRAW,
            names=complete.complete_bases,
        ),
        Option("adapter", "Adapter weights: NAME, FOLDER or FILE.", value="NAME", names=complete.complete_adapters),
        Option(
            "loras",
            "A LoRA and its weight; can be given again.",
            flag="--lora",
            value="NAME[:WEIGHT]",
            type=list[str],
            parse=lambda texts: tuple(map(LoraChoice.parse, texts)),
            names=complete.complete_loras,
        ),
        Option("lora_alpha", "Ignore a LoRA's alpha, as the official PASD does."),
        Option("blend", "How much of the base model enters, 0 to 1."),
        Option("allow_pickle", "Convert pickled weights, once."),
        Option("offline", "Never use the network."),
    ),
    Prompt: (
        Option("text", "What the picture shows.", flag="--prompt", value="TEXT", common=REDRAW),
        Option(
            "negative", "What it should not show.", flag="--negative-prompt", value="TEXT", default="the command's own"
        ),
        Option("caption", "Model that describes the picture, besides the prompt."),
    ),
    Sampling: (
        Option("quality", "Time against detail.", default="standard", common=ALL_TASKS),
        Option("steps", "Sampling steps."),
        Option("guidance", "Guidance scale."),
        Option(
            "guidance_interval",
            "Share of the steps that are guided, such as 0.1,0.8.",
            value="FROM,TO",
            type=str,
            parse=_parse_interval,
        ),
        Option("reuse", "Steps that share the deep layers' work: faster, less exact."),
        Option(
            "conditioning_scale",
            "How strongly the input guides the result.",
            alias="--strength",
            common=("stylize",),
        ),
        Option("noise_level", "Noise added to the input, 0 to 999."),
        Option("fidelity", "1 keeps to the input, 0 invents the most detail.", common=ENLARGE),
        Option("damage", "How damaged the input is."),
        Option("scheduler", "How the steps are taken."),
        Option("color_fix", "How the result gets the input's colours."),
        Option("chroma_upsampling", "How colour is enlarged: along edges, or as it is."),
        Option("process_size", "Smallest short side of the model's input, in pixels."),
        Option("tile", "Side of tiles, in latents; planned if left out."),
        Option("overlap", "Overlap of tiles."),
    ),
    Job: (
        Option("seed", "Same seed, same picture.", common=("stylize",)),
        Option("map_seeds", "Results that the map compares.", default=str(MAP_SEEDS)),
        Option("consistent", "Reduced again, the result is the input.", tasks=("upscale",)),
        Option("saturation", "Factor for the colours; 0 is grey.", tasks=COLOR_TASKS),
    ),
    Repair: (
        Option(
            "tone",
            "Stretch faded tones and weaken a cast; toned prints stay toned.",
            default="auto for restore-old-photo",
            common=("restore-old-photo",),
        ),
        Option("fill", "With --mask: fill damage with pieces of the picture, or smoothly."),
        Option("mask_limit", "With --mask auto: percent of the picture that may be filled unseen."),
        Option("mask_threshold", "With --mask auto: from which probability on, 0.01 to 0.99."),
        Option("mask_side", "With --mask auto: short side that the detector sees; 512 for thin scratches."),
        Option("mask_model", "With --mask auto: the detector's weights, NAME or FILE.", value="NAME"),
    ),
    DeviceChoice: (
        Option("device", "auto, cpu, cuda[:N] or mps.", value="NAME", names=complete.complete_devices),
        Option("dtype", "Precision."),
        Option("threads", "CPU threads.", default="OMP_NUM_THREADS, or all"),
        Option(
            "memory",
            "Memory that may be used, like 4G.",
            flag="--max-memory",
            value="SIZE",
            type=str,
            parse=size_in_bytes,
            default="what is free",
        ),
        Option("compiled", "On a GPU: compile for all pictures but the first.", flag="--compile"),
    ),
    CommandOptions: (
        Option("overwrite", "Replace results that exist.", common=ALL_TASKS),
        Option("skip_existing", "Leave results that exist.", common=ALL_TASKS),
        Option("prompt_file", "Text file with the prompt.", value="FILE", like="text"),
        Option("dry_run", "List what would be done, with pixels, time and disk.", common=ALL_TASKS),
        Option("explain", "Print tiles, work, memory and time; do nothing.", common=ALL_TASKS),
        Option("as_json", "One JSON object a line on standard output.", flag="--json"),
        Option("print0", "Output paths end with NUL, as xargs -0 wants."),
        Option("quiet", "Errors only.", alias="-q"),
        Option("verbose", "Where time went; tracebacks.", alias="-v"),
        Option("yes", "Fetch more than 1 GB without asking.", alias="-y"),
    ),
    RunOptions: (
        Option("workers", "Processes on this machine."),
        Option("ray", "Ray cluster: ADDRESS or auto.", value="ADDRESS"),
        Option("timeout", "Seconds that one picture may take.", default="none"),
        Option("fail_fast", "Stop at the first failure."),
        Option("journal", "Keep a journal to resume from.", default="for more than one picture"),
    ),
}

Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT...", help="Files, folders, or - for standard input.", show_default=False),
]


@cache
def field_types(settings: type) -> Mapping[str, Any]:
    """The types of a settings class, by field."""
    return get_type_hints(settings)


def field_default(settings: type, name: str) -> Any:
    default = next(f.default for f in fields(settings) if f.name == name)
    assert default is not MISSING, f"{settings.__name__}.{name} is not an option: it must be given"
    return default


def list_choices(settings: type, option: Option) -> tuple[str, ...]:
    """The words that an option accepts, if its type lists them."""
    kind = field_types(settings)[option.field]
    words = get_args(kind) + tuple(word for part in get_args(kind) for word in get_args(part))
    return tuple(word for word in words if isinstance(word, str))


def make_signature() -> inspect.Signature:
    """The signature of a picture command for Typer: the inputs, and a parameter for each option."""
    parameters = [_make_parameter(settings, option) for settings, options in OPTIONS.items() for option in options]
    inputs = inspect.Parameter("inputs", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Inputs)
    return inspect.Signature([inputs, *parameters])


def _make_parameter(settings: type, option: Option) -> inspect.Parameter:
    kind, default = option.type or field_types(settings)[option.field], field_default(settings, option.field)
    if option.parse is not None:
        kind, default = kind | None, None
    flags = [option.long, option.alias] if option.alias else [option.long]
    if default is True or kind == bool | None:
        flags[0] += f"/--no-{option.long.removeprefix('--')}"
    typed = Annotated[kind, typer.Option(*flags, help=option.help, autocompletion=option.names, envvar=option.variable)]  # type: ignore[valid-type]
    return inspect.Parameter(option.parameter, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=typed)


def collect_settings(kind: type[Settings], values: Mapping[str, Any], **more: Any) -> Settings:
    """The settings of one class from a command's values; `more` are fields without an option."""
    found = {}
    for option in OPTIONS[kind]:
        value = values[option.parameter]
        if option.parse is not None:
            value = field_default(kind, option.field) if value is None else option.parse(value)
        found[option.field] = value
    return kind(**{**found, **more})
