"""Check the file of `--preview`: it is overwritten again and again, and must not replace any other file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from srcli.batch.planning.plan import BatchPlan
from srcli.batch.planning.preflight import check_folders
from srcli.batch.settings import BatchSettings
from srcli.errors import InputError
from srcli.files import path_or_link_exists, same_file
from srcli.imaging.printable import printable


def check_preview_file(
    file: Path, settings: BatchSettings, plan: BatchPlan, read_provenance: Callable[[Path], dict[str, Any] | None]
) -> None:
    """Check that the preview can be written and overwrites nothing else. Removes an earlier preview from the inputs."""
    is_own = bool((read_provenance(file) or {}).get("preview"))
    plan.leave_out(lambda path, has_source: is_own and same_file(path, file))
    readable = (item.found for item in plan if not item.found.problem)
    sides = (side for found in readable for side in settings.input.sides_for(found.path, found.root).by_role().values())
    if plan.has(file) or any(same_file(side, file) for side in sides):
        raise InputError(f"--preview {printable(file)} is itself an input: give another name")
    if plan.claim(file, file) is not None:
        raise InputError(f"--preview {printable(file)} is where a result is written: give another name")
    if path_or_link_exists(file) and not is_own and settings.output.on_exists != "overwrite":
        raise InputError(
            f"--preview {printable(file)} exists and was not written by --preview: choose another name or --overwrite"
        )
    check_folders([file.parent], "--preview")
