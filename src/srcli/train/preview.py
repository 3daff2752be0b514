"""`srcli train preview`: a sheet of training pairs that shows the effect of a degradation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from srcli.degrade.chain import TrainingPair, degrade_pictures
from srcli.degrade.cropping import crop_randomly, flip_half
from srcli.degrade.draws import SeededDraws
from srcli.degrade.settings import Degradation
from srcli.errors import InputError, PictureError, unwritable_file
from srcli.files import replace_file
from srcli.imaging.picture import Pixels8
from srcli.train.pictures import read_as_tensor, survey_pictures, to_levels

log = logging.getLogger(__name__)

PREVIEW_GAP = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewPlan:
    """`side`: the side in pixels of the square crops."""

    data: Path
    out: Path
    degradation: Degradation
    count: int = 6
    side: int = 256
    seed: int = 1


def write_preview(plan: PreviewPlan) -> None:
    """Write the sheet, one row per picture: the target and its degraded version. Raises InputError, MachineError."""
    if plan.out.suffix.lower() != ".png":
        raise InputError(f"--out {plan.out} must end in .png: the sheet is a PNG")
    least = plan.side // 2 + 1  # reflection padding cannot exceed the picture's own side
    found = survey_pictures(plan.data, least)
    found.report(least)
    order = np.random.default_rng(plan.seed).permutation(len(found.usable))
    rows = list[tuple[Pixels8, Pixels8]]()
    for index in order.tolist():
        if len(rows) == plan.count:
            break
        try:
            picture = read_as_tensor(found.usable[index].path)
        except PictureError as error:
            log.info(f"left out: {error}")
            continue
        draws = SeededDraws.of(plan.seed, len(rows))
        target = crop_randomly(flip_half(picture[None], draws), plan.side, draws)
        rows.append(_row(degrade_pictures(target, plan.degradation, draws)))
    if not rows:
        raise InputError(f"no picture in {plan.data} can be read: give others")
    _write(make_sheet(rows), plan.out)


def _row(pair: TrainingPair) -> tuple[Pixels8, Pixels8]:
    target, degraded = (to_levels(part[0]) for part in pair)
    height, width = target.shape[:2]
    shown = Image.fromarray(degraded).resize((width, height), Image.Resampling.NEAREST)
    return target, np.asarray(shown)


def make_sheet(rows: Sequence[Sequence[Pixels8]]) -> Pixels8:
    """Arrange pictures of one size in rows, on white."""
    height, width = rows[0][0].shape[:2]
    across, down = len(rows[0]) * (width + PREVIEW_GAP) - PREVIEW_GAP, len(rows) * (height + PREVIEW_GAP) - PREVIEW_GAP
    sheet = np.full((down, across, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            top, left = y * (height + PREVIEW_GAP), x * (width + PREVIEW_GAP)
            sheet[top : top + height, left : left + width] = cell
    return sheet


def _write(sheet: Pixels8, out: Path) -> None:
    try:
        with replace_file(out) as fresh:
            Image.fromarray(sheet).save(fresh, "PNG")
    except OSError as error:
        raise unwritable_file(out, error, "give another --out") from error
