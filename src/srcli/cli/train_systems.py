"""`srcli train pasd | stablesr | cfw | sr3`: train an adapter from a folder of pictures."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from srcli.cli import complete
from srcli.cli.boundary import print_message
from srcli.cli.train_options import DATA, DataFlags, OptimizerFlags, TrainFlags, WeightFlags, add_options
from srcli.errors import InputError
from srcli.messages import forward_messages

if TYPE_CHECKING:
    from srcli.train.plan import TrainPlan
    from srcli.train.processes import Processes
    from srcli.train.systems.base import OptimizerSettings, System
    from srcli.weights.store import Store


DegradationOption = Annotated[
    str,
    typer.Option(
        help="pasd, stablesr, realesrgan, old-photo, or a TOML file.", autocompletion=complete.complete_degradations
    ),
]


@dataclass(frozen=True)
class PasdOptions:
    """Options of PASD's training."""

    form: Annotated[Literal["full", "light"], typer.Option(help="Size of the networks.")] = "full"
    task: Annotated[Literal["restore", "colorize"], typer.Option(help="What it is trained for.")] = "restore"
    rrdb: Annotated[bool, typer.Option("--rrdb", help="Stronger clean-up first.")] = False
    zero: Annotated[bool, typer.Option("--zero", help="New layers begin without effect.")] = False
    side: Annotated[int, typer.Option(help="Side of a crop, in pixels.")] = 512
    degradation: DegradationOption = "pasd"
    drop_caption: Annotated[float, typer.Option(help="Share of captions that are left out.")] = 0.5


@add_options(DataFlags, TrainFlags, WeightFlags, OptimizerFlags, PasdOptions)
def train_pasd(
    pictures: DataFlags, run: TrainFlags, weights: WeightFlags, rate: OptimizerFlags, options: PasdOptions
) -> None:
    """Train PASD: its ControlNet and pixel-aware attention, around a base model that stays as it is."""
    from srcli.degrade.presets import find_degradation
    from srcli.train.systems.base import OptimizerSettings
    from srcli.train.systems.pasd import PasdSettings, PasdSystem

    settings = PasdSettings(
        base=weights.base_model or "sd15",
        form=options.form,
        rrdb=options.rrdb,
        zero=options.zero,
        start=weights.start,
        task=options.task,
        side=options.side,
        degradation=find_degradation(options.degradation),
        optimizer=_optimizer_settings(rate, OptimizerSettings(clip=1.0)),
        checkpointing=rate.gradient_checkpointing,
    )
    _train_on_pictures(PasdSystem, settings, run, weights, run.plan(pictures.data, options.drop_caption), captions=True)


@dataclass(frozen=True)
class StableSROptions:
    """Options of StableSR's training."""

    side: Annotated[int, typer.Option(help="Side of a crop, in pixels.")] = 512
    degradation: DegradationOption = "stablesr"


@add_options(DataFlags, TrainFlags, WeightFlags, OptimizerFlags, StableSROptions)
def train_stablesr(
    pictures: DataFlags, run: TrainFlags, weights: WeightFlags, rate: OptimizerFlags, options: StableSROptions
) -> None:
    """Train StableSR: its time-aware encoder and modulation, around a base model that stays as it is."""
    from srcli.degrade.presets import find_degradation
    from srcli.train.systems.base import OptimizerSettings
    from srcli.train.systems.stablesr import StableSRSettings, StableSRSystem

    settings = StableSRSettings(
        base=weights.base_model or "sd21-base",
        start=weights.start,
        side=options.side,
        degradation=find_degradation(options.degradation),
        optimizer=_optimizer_settings(rate, OptimizerSettings()),
        checkpointing=rate.gradient_checkpointing,
    )
    _train_on_pictures(StableSRSystem, settings, run, weights, run.plan(pictures.data))


@dataclass(frozen=True)
class CfwOptions:
    """Options of CFW's training."""

    data: Annotated[Path | None, DATA] = None  # not needed once all pairs are made
    adapter: Annotated[str, typer.Option(help="Trained StableSR that makes the latents.")] = "stablesr"
    cache: Annotated[Path | None, typer.Option(help="Folder of pairs and latents; OUT-cache if left out.")] = None
    pairs: Annotated[int, typer.Option(min=0, help="Pairs to make; 0 takes those in --cache.")] = 10_000
    sampling_steps: Annotated[int, typer.Option(min=2, help="Steps for each pair's latents.")] = 200
    side: Annotated[int, typer.Option(help="Side of a crop, in pixels.")] = 512
    degradation: DegradationOption = "stablesr"
    lpips: Annotated[str, typer.Option(help="LPIPS weights, or a CFW checkpoint with them.")] = "stablesr-cfw"
    adaptive: Annotated[bool, typer.Option("--adaptive", help="Weigh the discriminator by gradients.")] = False


@add_options(TrainFlags, WeightFlags, OptimizerFlags, CfwOptions)
def train_cfw(run: TrainFlags, weights: WeightFlags, rate: OptimizerFlags, options: CfwOptions) -> None:
    """Train CFW, StableSR's feature wrapping. Latents are made once, by the StableSR that it is for."""
    from srcli.degrade.presets import find_degradation
    from srcli.train.caching import CachePlan, open_cached_sources, require_pairs_or_pictures
    from srcli.train.systems.base import OptimizerSettings
    from srcli.train.systems.cfw import CfwSettings, CfwSystem

    defaults = OptimizerSettings(kind="adam", betas=(0.5, 0.9), decay=0.0)
    settings = CfwSettings(
        base=weights.base_model or "sd21-base",
        lpips=options.lpips,
        start=weights.start,
        adaptive=options.adaptive,
        optimizer=_optimizer_settings(rate, defaults),
    )
    plan, store = run.plan(options.data), _open_store(weights)
    cache = CachePlan(
        folder=options.cache or plan.out.with_name(f"{plan.out.name}-cache"),
        pairs=options.pairs,
        adapter=options.adapter,
        base=weights.base_model,
        side=options.side,
        degradation=find_degradation(options.degradation),
        sampling_steps=options.sampling_steps,
        allow_pickle=weights.allow_pickle,
    )
    require_pairs_or_pictures(plan, cache)
    processes = _join_processes(run, plan)
    system = CfwSystem.open(settings, store, plan.seed, weights.allow_pickle)
    _train(plan, system, processes, open_cached_sources(plan, cache, store, processes))


@dataclass(frozen=True)
class SR3Options:
    """Options of SR3's training."""

    size: Annotated[str, typer.Option(help="16-128, 64-512 (from and to so many pixels), or a JSON file.")] = "16-128"


@add_options(DataFlags, TrainFlags, WeightFlags, OptimizerFlags, SR3Options)
def train_sr3(
    pictures: DataFlags, run: TrainFlags, weights: WeightFlags, rate: OptimizerFlags, options: SR3Options
) -> None:
    """Train SR3: the whole network, from new weights or those of a checkpoint."""
    from srcli.train.systems.base import OptimizerSettings
    from srcli.train.systems.sr3 import SR3Settings, SR3System, find_size

    size = find_size(options.size)
    defaults = OptimizerSettings(kind="adam", lr=size.lr, decay=0.0)
    settings = SR3Settings(size=size, start=weights.start, optimizer=_optimizer_settings(rate, defaults))
    _train_on_pictures(SR3System, settings, run, weights, run.plan(pictures.data))


def _optimizer_settings(rate: OptimizerFlags, defaults: OptimizerSettings) -> OptimizerSettings:
    if rate.optimizer_bits not in (8, 32):
        raise InputError(f"--optimizer-bits {rate.optimizer_bits} must be 8 or 32")
    clip = defaults.clip if rate.clip is None else rate.clip or None
    return replace(defaults, lr=defaults.lr if rate.lr is None else rate.lr, clip=clip, bits=rate.optimizer_bits)


def _join_processes(run: TrainFlags, plan: TrainPlan) -> Processes:
    """Join the other processes of the training; only the first prints messages."""
    from srcli.train.processes import Processes

    if run.threads:
        import torch

        torch.set_num_threads(run.threads)
    processes = Processes.join(plan.accumulate, plan.precision, plan.cpu)
    if processes.first:
        forward_messages(print_message)
    return processes


def _open_store(weights: WeightFlags) -> Store:
    from srcli.weights.store import Store

    return Store(offline=weights.offline)


def _train_on_pictures(
    kind: Any, settings: object, run: TrainFlags, weights: WeightFlags, plan: TrainPlan, *, captions: bool = False
) -> None:
    """Open the system of this class, and train it on pictures."""
    from srcli.train.pictures import require_data_folder
    from srcli.train.running import open_picture_sources

    require_data_folder(plan.data)
    processes = _join_processes(run, plan)
    system = kind.open(settings, _open_store(weights), plan.seed, weights.allow_pickle)
    sources = open_picture_sources(plan, system.pairs, system.least_side, processes, captions)
    _train(plan, system, processes, sources)


def _train(plan: TrainPlan, system: System, processes: Processes, sources: Any) -> None:
    from srcli.train.running import train_system

    result = train_system(plan, system, sources, processes, _print_progress)
    if processes.first:
        typer.echo(result)


def _print_progress(step: int, steps: int, terms: Mapping[str, float]) -> None:
    """Print a line of progress; on a terminal it replaces the previous one."""
    chosen = [f"{name} {value:.4g}" for name, value in terms.items() if not name.startswith("samples")]
    left = (steps - step) * terms["samples_per_step"] / max(terms["samples_per_second"], 1e-9)
    speed = f"{terms['samples_per_second']:.3g} samples/s, {_format_duration(left)} left"
    text = f"step {step}/{steps}: {', '.join(chosen)}, {speed}"
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{text}", end="" if step < steps else "\n", file=sys.stderr, flush=True)
    else:
        print_message(text)


def _format_duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
