"""Write results to files or to stdout."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srcli.batch.planning.plan import Item
from srcli.batch.report import DONE, Outcome
from srcli.batch.settings import STDIO, OutputOptions
from srcli.batch.workers.base import ComputedPicture
from srcli.errors import InputError, PictureError
from srcli.files import make_folder, path_exists, path_or_link_exists
from srcli.imaging.format_base import Format
from srcli.imaging.formats import FORMATS, check_format_limits, format_of_name, parse_format, usual_suffix
from srcli.imaging.mask_file import describe_found, encode_mask, mask_of_result, write_mask
from srcli.imaging.picture import Picture
from srcli.imaging.printable import printable
from srcli.imaging.write import write_picture
from srcli.tasks import Job

OnWhole = Callable[[str], None] | None


@dataclass(frozen=True, slots=True)
class ResultWriter:
    """Writes results according to the output options."""

    output: OutputOptions
    job: Job
    read_provenance: Callable[[Path], dict[str, Any] | None]

    def check(self, item: Item, picture: Picture) -> None:
        """Raise PictureError for a result that the target format cannot hold, before it is computed."""
        try:
            check_format_limits(
                self._choose_format(item.target, picture), *self.job.target(picture.width, picture.height)
            )
        except PictureError as error:
            raise PictureError(f"{printable(item.path)}: {error}", error.kind) from error
        except InputError as error:
            raise PictureError(f"{printable(item.path)}: {error}", "too-large") from error

    def write(self, item: Item, computed: ComputedPicture, key: str, on_whole: OnWhole = None) -> Outcome:
        """Write one result; a file that appeared since the plan was made is not overwritten."""
        began = time.perf_counter()
        target = item.target
        kind = self._choose_format(target, computed.picture).name
        if target != Path(STDIO):
            self._check_target(item)
        computed, mask_notes = self._write_mask(target, computed)
        provenance = computed.provenance | {"key": key}
        self._write_map(item, computed)
        file = sys.stdout.buffer if target == Path(STDIO) else target
        saving = self.output.saving
        notes = write_picture(
            computed.picture, file, format=kind, saving=saving, provenance=provenance, on_whole=on_whole
        )
        seconds = computed.seconds + time.perf_counter() - began
        size = (computed.picture.width, computed.picture.height)
        notes = (*computed.picture.notes, *mask_notes, *notes)
        return Outcome(item.path, DONE, target, seconds=seconds, size=size, notes=notes, frame=item.found.frame)

    def _write_map(self, item: Item, computed: ComputedPicture) -> None:
        """Write the map. It is written before the result, so that no result lacks its map."""
        if item.map is None or computed.map is None:
            return
        make_folder(item.map.parent, "--map")
        from srcli.uncertainty.map import write_map  # imports torch

        write_map(computed.map, computed.provenance, item.map)

    def _write_mask(self, target: Path, computed: ComputedPicture) -> tuple[ComputedPicture, tuple[str, ...]]:
        """Write the mask of found damage before the result, whose provenance names it. Returns notes too."""
        facts = computed.picture.repairs.get("damage")
        if not self.job.repair.find_scratches or not isinstance(facts, dict):
            return computed, ()
        path = None
        if computed.picture.damage is not None and target != Path(STDIO):
            before = self.read_provenance(target) if path_exists(target) else None
            content = encode_mask(computed.picture.damage, computed.provenance)
            path = write_mask(target, content, mask_of_result(before))
            facts = facts | {"file": printable(path.name), "sha256": hashlib.sha256(content).hexdigest()}
            computed = replace(
                computed,
                provenance=computed.provenance | {"repaired": dict(computed.picture.repairs) | {"damage": facts}},
            )
        return computed, (describe_found(facts, path),)

    def _check_target(self, item: Item) -> None:
        make_folder(item.target.parent, "-o")
        if item.replace and path_exists(item.target) and not os.access(item.target, os.W_OK):
            raise PictureError(f"{printable(item.target)} is write-protected: it was not overwritten", "read-only")
        if not item.replace and path_or_link_exists(item.target):
            text = f"{printable(item.target)} was created by another program during the run: it was not overwritten"
            raise PictureError(text, "exists")

    def _choose_format(self, target: Path, picture: Picture) -> Format:
        if self.output.format is not None:
            return parse_format(self.output.format)
        if target == Path(STDIO):
            return format_of_name("result" + usual_suffix(FORMATS[picture.format]))
        return format_of_name(target)
