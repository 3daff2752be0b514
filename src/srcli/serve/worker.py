"""The thread that runs jobs, in order, with one pipeline in memory."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srcli.api import Pipeline, Result
from srcli.batch.progress import PictureProgress
from srcli.batch.reading.reader import PictureReader, ReaderPool
from srcli.batch.settings import InputOptions, SidePictures
from srcli.compare.run import Comparison, build_comparison
from srcli.errors import MachineError, SrcliError
from srcli.files import name_beside
from srcli.imaging.mask_file import encode_mask, write_mask
from srcli.imaging.picture import AnyPixels, Picture
from srcli.sampling.tiling import Tile
from srcli.serve.jobs import JOB_CANCELLED, JOB_DONE, JOB_FAILED, MASK_FILE, SOURCE_FILE, JobRecord, JobStore
from srcli.serve.naming import name_result
from srcli.serve.preview import GrowingPreview
from srcli.serve.settings import ServerLimits, ServerSettings
from srcli.settings import MAP_ENDING
from srcli.tasks import LOADING

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


class Cancelled(Exception):
    """The job was cancelled while it ran."""


class JobWorker:
    """Runs jobs of a store until the process ends."""

    def __init__(self, store: JobStore, settings: ServerSettings) -> None:
        self._store, self._settings = store, settings
        self._reader = PictureReader(
            InputOptions(inputs=("-",), max_pixels=settings.limits.pixels), timeout=settings.limits.reading
        )
        self._loaded: tuple[tuple[Any, ...], Pipeline] | None = None
        self._ending = False
        self.preview: tuple[str, GrowingPreview] | None = None  # of the running job, with its id

    def start(self) -> None:
        threading.Thread(target=self._run, name="srcli-worker", daemon=True).start()

    def close(self) -> None:
        """Stop the running job at its next block or step; a later server repeats it."""
        self._ending = True
        self._reader.drop()
        self._store.release()

    def _run(self) -> None:
        import srcli.pipeline  # noqa: F401  # takes seconds, which the first job need not wait for

        while not self._ending:
            self.run_next()

    def run_next(self) -> None:
        """Wait for a job and run it. Errors end only this job."""
        job = self._store.wait_for_next()
        try:
            self._run_job(job)
        except (Cancelled, CancelledError):
            pass
        except SrcliError as error:
            self._fail(job, str(error), getattr(error, "kind", type(error).__name__))
        except OSError as error:
            self._fail(job, f"the result cannot be written ({error.strerror})", "machine")
        except Exception as error:
            log.exception("a job failed")
            self._fail(job, f"{type(error).__name__}: {error}", "unexpected")

    def _fail(self, job: JobRecord, message: str, kind: str) -> None:
        message = message.replace(str(self._store.place(job) / SOURCE_FILE), job.name)
        self._store.update(job.id, save=True, status=JOB_FAILED, message=message, kind=kind)

    def _run_job(self, job: JobRecord) -> None:
        picture = self._read(job)
        sizes = {"source": (picture.width, picture.height)}
        self._store.update(job.id, stage=LOADING, sizes=sizes)
        result = self._compute(job, picture)
        self._check_cancelled(job)
        name = name_result(job, picture)
        target = self._store.place(job) / "result" / name
        if result.mask is not None:
            write_mask(target, encode_mask(result.mask, result.provenance), None)
        if result.map is not None:
            result.save_map(name_beside(target, MAP_ENDING))
        result.save(target)
        sizes = sizes | {"result": (result.picture.width, result.picture.height)}
        self._store.update(job.id, save=True, status=JOB_DONE, stage="", progress=1.0, result=name, sizes=sizes)

    def _read(self, job: JobRecord) -> Picture:
        """Read the source in a separate process, which a bad file may crash."""
        place = self._store.place(job)
        return self._reader.read(
            place / SOURCE_FILE, sides=SidePictures(mask=place / MASK_FILE if job.has_mask else None)
        )

    def _compute(self, job: JobRecord, picture: Picture) -> Result:
        pipeline = self._pipeline(job)
        work, progress, preview = getattr(pipeline, job.task), PictureProgress(), GrowingPreview(picture)
        self.preview = job.id, preview

        def show_block(levels: AnyPixels, place: Tile, whole: tuple[int, int]) -> None:
            preview.add(levels, place, whole)
            self._count_preview(job)

        def show_expected(expected: Tensor) -> None:
            if preview.show_expected(expected):
                self._count_preview(job)

        pipeline.on_block, pipeline.on_expected = show_block, show_expected

        def follow(stage: str, done: int, total: int) -> None:
            self._check_cancelled(job)
            progress.update(stage, done, total)
            self._store.update(job.id, stage=progress.stage, progress=progress.share)

        result: Result = work(picture, on_progress=follow, **job.options)
        return result

    def _count_preview(self, job: JobRecord) -> None:
        if (now := self._store.get(job.id)) is not None:
            self._store.update(job.id, previews=now.previews + 1)

    def _check_cancelled(self, job: JobRecord) -> None:
        now = self._store.get(job.id)
        if self._ending or now is None or now.status == JOB_CANCELLED:
            raise Cancelled

    def _pipeline(self, job: JobRecord) -> Pipeline:
        """The pipeline for this job, which replaces the loaded one if that differs. Clients cannot start downloads."""
        key = job.engine, job.base
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # both together may not fit into memory
            device = self._settings.device
            pipeline = Pipeline.load(
                job.engine,
                task=job.task,
                base=job.base,
                device=device.device,
                dtype=device.dtype,
                max_memory=device.memory,
                offline=True,
            )
            self._loaded = key, pipeline
        return self._loaded[1]


def write_job_comparison(store: JobStore, job: JobRecord, limits: ServerLimits) -> Path:
    """Write the page that compares a result with its source, once; another process decodes the pictures."""
    page = store.place(job) / "compare.html"
    if not page.exists():
        readers = ReaderPool(InputOptions(inputs=("-",), max_pixels=limits.pixels), timeout=limits.reading)
        places = store.result_path(job), store.place(job) / SOURCE_FILE
        try:
            failed = build_comparison(Comparison(places=places, page=page, reader=readers.read), log.warning).failed
        finally:
            readers.close()
        if failed:
            raise MachineError("the two pictures cannot be compared")
    return page
