"""Run a loaded engine on one picture. The four picture commands differ only in their job."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from srcli import __version__
from srcli.engines.base import Canvas, Engine, PixelSize, Request, Surveyor
from srcli.engines.calibration import OtherVersions
from srcli.engines.load import load_engine, load_preview
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import spare_host_memory
from srcli.engines.runtime.oom_fallback import MemorySavings, OomFallback
from srcli.errors import PictureError
from srcli.imaging.bands import split_rows
from srcli.imaging.color import compute_luminance, has_color, transplant_luma
from srcli.imaging.metadata import set_density
from srcli.imaging.picture import Picture, PixelArray
from srcli.imaging.recolor import recolor
from srcli.imaging.resize import resize_array
from srcli.imaging.spill import allocate_array, evict_pages
from srcli.imaging.xmp import parse_provenance
from srcli.memory import reuse_freed_memory
from srcli.repair.find_damage import DamageFinder, load_finder
from srcli.repair.repair_picture import repair_picture
from srcli.sampling import colorfix
from srcli.sampling.blocks import Block, cut_blocks
from srcli.sampling.consistency import VISIBLE, make_consistent
from srcli.sampling.hint import pixels_to_tensor, to_unit_float
from srcli.sampling.noise import NoiseField
from srcli.sampling.resume import (
    BlockProgress,
    OnBlock,
    OnExpected,
    OnProgress,
    ResumeState,
    find_resume_folder,
    hash_picture,
)
from srcli.sampling.sampler import Tiled, run_sampler
from srcli.sampling.tiling import Tile, gaussian_weight
from srcli.settings import DeviceChoice, ModelChoice, Repair
from srcli.tasks import FILLING, FINISHING, PASS, PREPARING, SAMPLING, TILES, Job

if TYPE_CHECKING:
    from srcli.engines.latent.preview import Preview

NO_REPAIR = Repair()
LONGEST_HISTORY = 8000  # characters of the record of how a picture was made: a file's metadata are limited

log = logging.getLogger(__name__)


def _silent(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class EnginePipeline:
    """Loaded models, and how they process a picture. Loaded once, used for every picture of a batch."""

    engine: Engine
    device: Device
    choice: ModelChoice = ModelChoice()
    preview: Preview | None = None
    finder: DamageFinder | None = None

    @classmethod
    def load(
        cls, choice: ModelChoice, device: DeviceChoice, preview: Path | None = None, repair: Repair = NO_REPAIR
    ) -> EnginePipeline:
        # Before the engine, which may take minutes: errors of a preview or of the scratch detector come first.
        shown = load_preview(preview, choice, device) if preview else None
        finder = load_finder(repair, choice, device) if repair.find_scratches else None
        where, engine = load_engine(choice, device)
        return cls(engine, where, choice, shown, finder)

    @cached_property
    def oom_fallback(self) -> OomFallback:
        """Memory savings to try when memory runs out; those that one picture needed stay on for the next."""
        return OomFallback(self.engine.supported_savings)

    def with_finder(self, repair: Repair, device: DeviceChoice) -> EnginePipeline:
        """The same pipeline, with the scratch detector if it is needed and not loaded yet."""
        if self.finder is not None or not repair.find_scratches:
            return self
        return replace(self, finder=load_finder(repair, self.choice, device))

    def repair(self, picture: Picture, job: Job, on_progress: OnProgress = _silent) -> Picture:
        """Repair the damage of a picture. `run`, `provenance` and `resume_state` take its result."""
        return repair_picture(picture, job.repair, self.finder, job.tone, partial(on_progress, FILLING))

    def resume_state(self, picture: Picture, job: Job) -> ResumeState:
        """The saved state of this picture and job, from which an interrupted run is continued."""
        engine = self.engine
        made_by = (
            engine.spec.name,
            engine.variant,
            engine.block,
            sorted(engine.provenance().items()),
            replace(self.choice, offline=False),
        )
        recipe = __version__, torch.__version__, str(self.device), torch.get_num_threads(), made_by, job
        return ResumeState(find_resume_folder(hash_picture(picture.pixels, *recipe)), picture.name)

    def other_versions(self, job: Job) -> OtherVersions:
        """The jobs whose results a map of uncertainty compares."""
        return self.engine.spec.other_versions(job)

    def run(
        self,
        picture: Picture,
        job: Job,
        on_progress: OnProgress = _silent,
        resume_state: ResumeState | None = None,
        on_block: OnBlock | None = None,
        on_expected: OnExpected | None = None,
    ) -> Picture:
        """Process one picture. The result keeps its metadata, transparency and colour profile."""
        target = job.target(picture.width, picture.height)
        request = self._make_request(job)
        pixels = self._to_grey(picture, job) if job.task.grey_hint else picture.pixels
        passes = self.engine.passes((picture.width, picture.height), target)
        for index, size in enumerate(passes):
            if len(passes) > 1:
                on_progress(PASS, index, len(passes))
            # Another pass samples other detail, so it must not reuse the noise of the one before.
            pass_request = replace(request, noise=replace(request.noise, layer=index))
            progress = BlockProgress(
                on_progress, resume_state or ResumeState(None), index, on_block=on_block, on_expected=on_expected
            )
            pixels = resize_array(self._run_pass(pixels, size, pass_request, progress), size)
        if job.consistent:
            self._make_consistent(pixels, picture)
        if picture.strokes is not None or picture.reference is not None:
            pixels = recolor(pixels, picture.strokes, picture.reference)
        if job.task.keep_luma:
            pixels = transplant_luma(pixels, resize_array(picture.pixels, target), job.saturation)
        _check_not_blank(pixels, picture.pixels)
        alpha = None if picture.alpha is None else resize_array(picture.alpha, target)
        metadata = picture.metadata if job.size.dpi is None else set_density(picture.metadata, job.size.dpi)
        grey = picture.grey and not job.task.keep_luma
        result = replace(picture, pixels=pixels, alpha=alpha, grey=grey, metadata=metadata)
        return replace(result, strokes=None, reference=None)

    def provenance(self, job: Job, picture: Picture) -> dict[str, object]:
        """How the result was made, for its metadata. It says nothing about the user's machine or folders."""
        request, savings = self._survey(picture.pixels, self._make_request(job)), self.oom_fallback.savings
        guides = [name for name in ("strokes", "reference") if getattr(picture, name) is not None]
        sampling, found = request.sampling, {name: round(value, 2) for name, value in request.findings.items()}
        return {
            "tool": f"srcli {__version__}",
            "task": job.task.name,
            "engine": self.engine.spec.name_of(self.engine.variant),
            "models": dict(self.engine.provenance()),
            "seed": job.seed,
            "scale": round(job.factor(picture.width, picture.height), 4),
            "settings": sampling.given(),
            **({"found": found} if found else {}),
            "prompt": job.prompt.text,
            **({"consistent": True} if job.consistent else {}),
            **({"saturation": job.saturation} if job.task.keep_luma else {}),
            **({"repaired": dict(picture.repairs)} if picture.repairs else {}),
            **({"made from": before} if (before := _read_history(picture)) else {}),
            **({"guided by": guides} if guides else {}),
            "device": self.device.torch.type,
            **({"memory savings": asdict(savings)} if savings != MemorySavings() else {}),
            "dtype": str(self.device.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "input_sha256": picture.sha256,
        }

    def _to_grey(self, picture: Picture, job: Job) -> PixelArray:
        """The luminance, in all three channels."""
        if not picture.grey and has_color(picture.pixels):
            log.warning(f"{picture.name}: has colours, which {job.task.name} replaces: only its luminance is kept")
        return np.repeat(compute_luminance(picture.pixels).astype(picture.pixels.dtype)[:, :, None], 3, axis=2)

    def _make_consistent(self, pixels: PixelArray, picture: Picture) -> None:
        if pixels.shape[0] < picture.height or pixels.shape[1] < picture.width:
            raise PictureError("`consistent` needs a result that is larger than the input: leave it out", "size")
        left = make_consistent(pixels, picture.pixels)
        if left >= VISIBLE:
            log.warning(f"{picture.name}: where it is black or white, the reduced result is off by {left:.1f} levels")

    def _make_request(self, job: Job) -> Request:
        sampling = self.engine.spec.complete_sampling(job.sampling, self.engine.variant)
        if job.sampling.color_fix is None and job.task.color_fix is not None:
            sampling = replace(sampling, color_fix=job.task.color_fix)
        return Request(job.task, sampling, job.prompt, NoiseField(job.seed))

    def _run_pass(self, pixels: PixelArray, target: PixelSize, request: Request, progress: BlockProgress) -> PixelArray:
        """The engine's result for the whole picture, in the engine's working size."""
        height, width = pixels.shape[:2]
        hint = resize_array(pixels, self.engine.working_size((width, height), target, request))
        height, width = hint.shape[:2]
        request = self._survey(hint, request)
        factor = self.engine.factor
        out = allocate_array(
            (height * factor, width * factor, 3), hint.dtype, spare_host_memory(self.device) - pixels.nbytes
        )
        pieces = list(cut_blocks(height, width, self.engine.block, self.engine.halo))
        for block, part in zip(pieces, progress.split(len(pieces)), strict=True):
            _view(out, block.inner, factor)[:] = levels = self._block_levels(hint, block, request, part)
            if part.on_block is not None:
                part.on_block(levels, Tile(*(v * factor for v in block.inner)), (width * factor, height * factor))
            evict_pages(out)
        return out

    def _survey(self, hint: PixelArray, request: Request) -> Request:
        """The request, with what the engine measured in the whole picture."""
        return self.engine.survey(hint, request) if isinstance(self.engine, Surveyor) else request

    def _block_levels(self, pixels: PixelArray, block: Block, request: Request, progress: BlockProgress) -> PixelArray:
        """The levels of a block, saved or computed; when memory runs out, computed with more memory savings."""
        if (saved := progress.find_pixels()) is not None:
            return saved
        levels = self.oom_fallback.run(
            lambda savings: self._compute_block(pixels, block, replace(request, savings=savings), progress)
        )
        progress.save_pixels(levels)
        return levels

    @torch.inference_mode()
    def _compute_block(self, pixels: PixelArray, block: Block, request: Request, progress: BlockProgress) -> PixelArray:
        hint = pixels_to_tensor(_view(pixels, block.outer, 1))
        request = replace(request, noise=request.noise.at(block.outer.top, block.outer.left))
        progress.report(PREPARING, 0, 1)
        canvas = self.engine.prepare(hint, request)
        x = self._sample(canvas, request, progress)
        progress.report(FINISHING, 0, 1)
        rgb = canvas.finish(x)
        fixed = colorfix.fix_colors(
            request.sampling.color_fix, rgb, lambda rows: to_unit_float(hint[:, :, rows]).to(rgb)
        )
        return _to_levels(Tile(*(v * self.engine.factor for v in block.inside)), fixed, pixels.dtype)

    def _sample(self, canvas: Canvas, request: Request, progress: BlockProgress) -> Tensor:
        if canvas.denoiser is None or canvas.scheduler is None:
            return canvas.start
        scheduler = canvas.scheduler
        height, width = canvas.start.shape[-2:]
        layout = self._layout(height, width, request)
        denoiser = canvas.denoiser
        if layout is not None:
            weight, device = canvas.tile_weight or gaussian_weight, canvas.start.device
            denoiser = Tiled(denoiser, *layout, device, weight, partial(progress.on_progress, TILES))
        tiles = repr(layout and layout[0])
        x, begun = progress.resume(canvas.start, scheduler, tiles)
        progress.report(SAMPLING, begun, len(scheduler.timesteps))

        def on_step(done: int, total: int, x: Tensor, expected: Tensor) -> None:
            if done % (request.sampling.reuse or 1) == 0:  # later steps need no intermediate results of earlier ones
                progress.save_step(done, x, scheduler, tiles)
            if self.preview:
                self.preview.show(expected)
            if progress.on_expected is not None:
                progress.on_expected(expected)
            progress.report(SAMPLING, done, total)

        with reuse_freed_memory():
            return run_sampler(denoiser, scheduler, x, canvas.hint, request.noise, on_step, begun)

    def _layout(self, height: int, width: int, request: Request) -> tuple[list[Tile], int] | None:
        """The engine's tiles and how many are computed at once; memory savings make both smaller."""
        layout = self.engine.layout(height, width, request.sampling)
        if request.savings.tile < 1:
            side = min(layout[0][0][2:]) if layout else max(height, width)
            smaller = replace(request.sampling, tile=max(1, int(side * request.savings.tile)), overlap=None)
            layout = self.engine.layout(height, width, smaller)
        return layout and (layout[0], request.savings.batch(layout[1]))


def _read_history(picture: Picture) -> Mapping[str, object] | None:
    """How the source was made, if by srcli, so that one record holds all steps, as restore and then colorize."""
    before = parse_provenance(picture.metadata.xmp)
    return before if before and len(json.dumps(before)) <= LONGEST_HISTORY else None


def _view(pixels: PixelArray, tile: tuple[int, int, int, int], factor: int) -> PixelArray:
    top, left, height, width = (v * factor for v in tile)
    return pixels[top : top + height, left : left + width]


def _to_levels(tile: Tile, rgb_of: colorfix.ReadRows, dtype: np.dtype[np.unsignedinteger]) -> PixelArray:
    """Convert this tile of values in 0..1 to (H, W, 3) integer levels. NaN is an error: it would become black."""
    out, top = np.empty((tile.height, tile.width, 3), dtype), float(np.iinfo(dtype).max)
    for rows in split_rows(tile.height, tile.width):
        rgb = rgb_of(slice(tile.top + rows.start, tile.top + rows.stop))[..., tile.left : tile.left + tile.width]
        if not bool(torch.isfinite(rgb).all()):
            raise PictureError("the model returned NaN or infinity: try `dtype` float32", "not-finite")
        out[rows] = (rgb[0].float().clamp(0, 1) * top).round().permute(1, 2, 0).cpu().numpy()
    return out


def _check_not_blank(result: PixelArray, source: PixelArray) -> None:
    """Raises PictureError if a picture became a single colour, as with a decoder that overflows."""
    if result.size > 3 and _has_one_level(result) and not _has_one_level(source):
        raise PictureError("the model returned a blank picture: try `dtype` float32", "blank")


def _has_one_level(pixels: PixelArray) -> bool:
    return all(bool((pixels[rows] == pixels[0, 0, 0]).all()) for rows in split_rows(*pixels.shape[:2]))
