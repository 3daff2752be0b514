"""Validation: restore fixed pictures, score them against their targets, and write a sheet of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from srcli.errors import unwritable_file
from srcli.files import replace_file
from srcli.metrics.similarity import compute_psnr, compute_ssim
from srcli.train.pictures import to_levels
from srcli.train.preview import make_sheet
from srcli.train.systems.base import Batch, SampleNoise, System

FIRST_NOISE_NUMBER = 1_000_000_000  # first number of validation batches, above all of training


@dataclass(frozen=True)
class Validation:
    """The pictures, one per batch, and the folder of the sheets."""

    system: System
    batches: Sequence[Batch]
    seed: int
    folder: Path

    def __call__(self, step: int) -> Mapping[str, float]:
        """Mean PSNR and SSIM of the results, and of the degraded pictures."""
        scores: dict[str, list[float]] = {"psnr": [], "ssim": [], "psnr_degraded": [], "ssim_degraded": []}
        rows = []
        for index, batch in enumerate(self.batches):
            result = self.system.restore(batch, SampleNoise(self.seed, FIRST_NOISE_NUMBER + index, batch.places))
            cells = [to_levels(part[0]) for part in (batch.degraded, result, batch.target)]
            for name, cell in (("", cells[1]), ("_degraded", cells[0])):
                scores[f"psnr{name}"].append(compute_psnr(cell, cells[2]))
                scores[f"ssim{name}"].append(compute_ssim(cell, cells[2]))
            rows.append(cells)
        self._write(Image.fromarray(make_sheet(rows)), step)
        return {name: float(np.mean(values)) for name, values in scores.items()}

    def _write(self, sheet: Image.Image, step: int) -> None:
        target = self.folder / f"step-{step:09d}.png"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replace_file(target) as fresh:
                sheet.save(fresh, "PNG")
        except OSError as error:
            raise unwritable_file(target, error, "make room") from error
