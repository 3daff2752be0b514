"""Repair a picture before an engine gets it, and record what was done."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from srcli.imaging.inpaint import Marks, OnPart, fill_damage, ignore_part
from srcli.imaging.picture import Picture
from srcli.imaging.tone import correct_tone
from srcli.settings import Repair, Tone

if TYPE_CHECKING:
    from srcli.repair.find_damage import DamageFinder


def repair_picture(
    picture: Picture,
    repair: Repair,
    finder: DamageFinder | None,
    tone: Tone = "none",
    on_part: OnPart = ignore_part,
) -> Picture:
    """Repair a picture: damage first, then tones. `on_part` is told how much of the damage is filled."""
    repaired = _repair_damage(picture, repair, finder, on_part)
    if tone == "none":
        return repaired
    pixels, curves = correct_tone(repaired.pixels, repaired.alpha)
    return replace(repaired, pixels=pixels, repairs={**repaired.repairs, "tone": curves}) if curves else repaired


def _repair_damage(picture: Picture, repair: Repair, finder: DamageFinder | None, on_part: OnPart) -> Picture:
    """Fill the damage. Marks that were found stay with the picture, to be written as a mask; given ones are dropped."""
    if finder is not None and repair.find_scratches:
        return _repair_found(picture, repair, finder, on_part)
    if picture.damage is None:
        return picture
    facts = {"by": "hand", "percent": round(measure_share(picture.damage), 3), "filled": True, "fill": repair.fill}
    filled = fill_damage(picture.pixels, picture.damage, repair.fill, on_part)
    return replace(picture, pixels=filled, damage=None, repairs={"damage": facts})


def _repair_found(picture: Picture, repair: Repair, finder: DamageFinder, on_part: OnPart) -> Picture:
    marks = finder.find(picture.pixels, repair)
    share = measure_share(marks)
    filled = 0 < share <= repair.mask_limit
    facts = {
        "by": "scratch detector",
        "models": dict(finder.weights_used),
        "threshold": repair.mask_threshold,
        "side": repair.mask_side,
        "percent": round(share, 3),
        "limit": repair.mask_limit,
        "filled": filled,
        "fill": repair.fill,
    }
    pixels = fill_damage(picture.pixels, marks, repair.fill, on_part) if filled else picture.pixels
    return replace(picture, pixels=pixels, damage=marks if share else None, repairs={"damage": facts})


def measure_share(marks: Marks) -> float:
    """The marked share of the picture, in percent."""
    return float(100 * np.count_nonzero(marks) / marks.size)
