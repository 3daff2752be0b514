"""Names of results, on disk and for downloads."""

from __future__ import annotations

from pathlib import Path, PurePath

from srcli.api import find_task, make_job
from srcli.batch.planning.output_names import output_suffix
from srcli.files import name_beside
from srcli.imaging.formats import writable_formats
from srcli.imaging.picture import Picture
from srcli.serve.jobs import JobRecord
from srcli.settings import MAP_ENDING

MAX_UPLOAD_NAME = 120


def clean_name(text: str) -> str:
    """A client's file name without folders, control characters and characters that file systems refuse."""
    name = text.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join("_" if ord(c) < 32 or ord(c) == 127 or c in '<>:"|?*' else c for c in name).strip(" .")
    stem, dot, suffix = kept.rpartition(".")
    if not stem or len(suffix) > 8:
        return kept[:MAX_UPLOAD_NAME] or "picture"
    return stem[:MAX_UPLOAD_NAME] + dot + suffix


def name_result(job: JobRecord, picture: Picture) -> str:
    """The file in the job's folder: `result`, in the requested format or that of the source."""
    if job.format is not None:
        return f"result{output_suffix(Path(job.name), job.format)}"
    kind = picture.format if picture.format in {row.name for row in writable_formats()} else "PNG"
    return f"result{output_suffix(Path('x'), kind)}"


def download_name(job: JobRecord) -> str:
    """The name that the command line would give the result: `NAME_x4.jpg`."""
    width, height = job.sizes["source"]
    order = make_job(find_task(job.task), dict(job.options))
    suffix = order.task.suffix(order.factor(width, height))
    return f"{PurePath(job.name).stem}{suffix}{PurePath(job.result or '').suffix}"


def name_map(job: JobRecord) -> str:
    """The name that the command line would give the map."""
    return name_beside(Path(download_name(job)), MAP_ENDING).name
