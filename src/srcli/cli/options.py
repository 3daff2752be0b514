"""Options that the four picture commands share, in groups that turn into frozen settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Annotated, get_type_hints

import typer

from srcli import settings
from srcli.engines.registry import all_engines
from srcli.errors import InputError


def add_options(*groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command with the options of these dataclasses: each field is an option; the command gets instances."""

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        hints = {f.name: get_type_hints(g, include_extras=True)[f.name] for g in groups for f in fields(g)}

        def run(**values: object) -> None:
            command(*(group(**{f.name: values[f.name] for f in fields(group)}) for group in groups))

        run.__name__, run.__doc__, run.__annotations__ = command.__name__, command.__doc__, hints
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f), annotation=hints[f.name])
                for group in groups
                for f in fields(group)
            ]
        )
        return run

    return wrap


def _choices(*names: str) -> str:
    """Join names for a help text, like a, b or c."""
    return f"{', '.join(names[:-1])} or {names[-1]}."


COMPILING = ", ".join(spec.title for spec in all_engines().values() if "compiled" in spec.options)


def _default(field: Field[object]) -> object:
    """The default of a field; a field without one is a required option."""
    return inspect.Parameter.empty if field.default is MISSING else field.default


@dataclass(frozen=True)
class SizeFlags:
    """Size of the result."""

    scale: Annotated[
        float | None, typer.Option("--scale", "-s", help="Times larger, any number.", rich_help_panel="Size")
    ] = None
    width: Annotated[int | None, typer.Option(help="Width of the result.", rich_help_panel="Size")] = None
    height: Annotated[int | None, typer.Option(help="Height of the result.", rich_help_panel="Size")] = None
    long_side: Annotated[int | None, typer.Option(help="Longer side of the result.", rich_help_panel="Size")] = None

    def frozen(self) -> settings.Size:
        return settings.Size(scale=self.scale, width=self.width, height=self.height, long_side=self.long_side)


@dataclass(frozen=True)
class ModelFlags:
    """Which weights to use, and on which device."""

    engine: Annotated[str, typer.Option(help=_choices("auto", *all_engines()), rich_help_panel="Models")] = "auto"
    variant: Annotated[str | None, typer.Option(help="Variant of the engine's weights.", rich_help_panel="Models")] = (
        None
    )
    base_model: Annotated[
        str | None,
        typer.Option(help="Base model: NAME, FOLDER, FILE.safetensors or hub-id\\[@rev].", rich_help_panel="Models"),
    ] = None
    adapter: Annotated[
        str | None, typer.Option(help="Adapter weights: NAME, FOLDER or FILE.", rich_help_panel="Models")
    ] = None
    lora: Annotated[list[str] | None, typer.Option(help="FILE\\[:WEIGHT]; repeatable.", rich_help_panel="Models")] = (
        None
    )
    lora_alpha: Annotated[
        bool, typer.Option(help="Honour a LoRA's alpha; the official PASD does not.", rich_help_panel="Models")
    ] = True
    blend: Annotated[
        float, typer.Option(help="How much of the base model enters, 0 to 1.", rich_help_panel="Models")
    ] = 1.0
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Convert pickled weights, once.", rich_help_panel="Models")
    ] = False
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.", rich_help_panel="Models")] = False
    device: Annotated[str, typer.Option(help="auto, cpu, cuda\\[:N] or mps.", rich_help_panel="Models")] = "auto"
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.", rich_help_panel="Models")] = "auto"
    threads: Annotated[int | None, typer.Option(help="CPU threads, or OMP_NUM_THREADS.", rich_help_panel="Models")] = (
        None
    )
    max_memory: Annotated[
        str | None, typer.Option(help="Memory that may be used, like 4G.", rich_help_panel="Models")
    ] = None
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help=f"{COMPILING} on a GPU: compile for all but the first.",
            rich_help_panel="Models",
        ),
    ] = False

    def choice(self) -> settings.ModelChoice:
        return settings.ModelChoice(
            engine=self.engine,
            variant=self.variant,
            base=self.base_model,
            adapter=self.adapter,
            loras=tuple(settings.LoraChoice.parse(text) for text in self.lora or ()),
            lora_alpha=self.lora_alpha,
            blend=self.blend,
            allow_pickle=self.allow_pickle,
            offline=self.offline,
        )

    def where(self) -> settings.DeviceChoice:
        memory = settings.size_in_bytes(self.max_memory)
        return settings.DeviceChoice(
            device=self.device, dtype=self.dtype, threads=self.threads, memory=memory, compiled=self.compile
        )


@dataclass(frozen=True)
class PromptFlags:
    """The prompt."""

    prompt: Annotated[str, typer.Option(help="What the picture shows.", rich_help_panel="Prompt")] = ""
    prompt_file: Annotated[Path | None, typer.Option(help="Text file with the prompt.", rich_help_panel="Prompt")] = (
        None
    )
    negative_prompt: Annotated[str | None, typer.Option(help="What it must not show.", rich_help_panel="Prompt")] = None
    caption: Annotated[str, typer.Option(help="auto, none, classify, detect or caption.", rich_help_panel="Prompt")] = (
        "auto"
    )

    def frozen(self) -> settings.Prompt:
        return settings.Prompt(text=self._text(), negative=self.negative_prompt, caption=self.caption)

    def _text(self) -> str:
        if self.prompt_file is None:
            return self.prompt
        if self.prompt:
            raise InputError("--prompt and --prompt-file exclude each other: give one")
        try:
            return " ".join(self.prompt_file.read_text(encoding="utf-8-sig").split())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.prompt_file} cannot be read as text: {type(error).__name__}") from error


@dataclass(frozen=True)
class SamplingFlags:
    """How the picture is sampled; None means the engine's default."""

    quality: Annotated[
        str | None, typer.Option(help="draft, standard or best: time against detail.", rich_help_panel="Sampling")
    ] = None
    steps: Annotated[int | None, typer.Option(help="Sampling steps.", rich_help_panel="Sampling")] = None
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.", rich_help_panel="Sampling")] = None
    guidance_interval: Annotated[
        str | None, typer.Option(help="FROM,TO: share of the steps that are guided.", rich_help_panel="Sampling")
    ] = None
    reuse: Annotated[
        int | None,
        typer.Option(help="Steps that share the deep layers' work: faster, less exact.", rich_help_panel="Sampling"),
    ] = None
    conditioning_scale: Annotated[
        float | None,
        typer.Option(
            "--conditioning-scale", "--strength", help="How strongly the input leads.", rich_help_panel="Sampling"
        ),
    ] = None
    noise_level: Annotated[
        int | None, typer.Option(help="Noise added to the input, 0 to 999 (PASD).", rich_help_panel="Sampling")
    ] = None
    fidelity: Annotated[
        float | None,
        typer.Option(help="1 stays with the input, 0 invents most detail.", rich_help_panel="Sampling"),
    ] = None
    damage: Annotated[
        str | None,
        typer.Option(
            help="How damaged the input is: auto, none, light or heavy (builtin).", rich_help_panel="Sampling"
        ),
    ] = None
    scheduler: Annotated[
        str | None, typer.Option(help="unipc, dpm++, ddim, euler, lcm or ddpm.", rich_help_panel="Sampling")
    ] = None
    color_fix: Annotated[str | None, typer.Option(help="wavelet, adain or none.", rich_help_panel="Sampling")] = None
    process_size: Annotated[
        int | None,
        typer.Option(help="Least short side that the model is shown, in pixels.", rich_help_panel="Sampling"),
    ] = None
    tile: Annotated[
        int | None,
        typer.Option(help="Tile side on the canvas (latents); planned if left out.", rich_help_panel="Sampling"),
    ] = None
    overlap: Annotated[int | None, typer.Option(help="Overlap of tiles.", rich_help_panel="Sampling")] = None
    seed: Annotated[int, typer.Option(help="Same seed, same picture.", rich_help_panel="Sampling")] = settings.SEED

    consistent: Annotated[
        bool,
        typer.Option("--consistent", help="Reduced again, the result is the input.", rich_help_panel="Sampling"),
    ] = False

    def frozen(self) -> settings.Sampling:
        return settings.Sampling(
            quality=self.quality,
            steps=self.steps,
            guidance=self.guidance,
            guidance_interval=_interval(self.guidance_interval),
            reuse=self.reuse,
            conditioning_scale=self.conditioning_scale,
            noise_level=self.noise_level,
            fidelity=self.fidelity,
            damage=self.damage,
            scheduler=self.scheduler,
            color_fix=self.color_fix,
            process_size=self.process_size,
            tile=self.tile,
            overlap=self.overlap,
        )


def _interval(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--guidance-interval {text!r} is not FROM,TO: try 0.1,0.8") from error
    return low, high
