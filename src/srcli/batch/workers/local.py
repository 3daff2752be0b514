"""The default worker: one thread of this process, with one loaded pipeline."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.batch.settings import PipelineFactory
from srcli.batch.workers.base import ComputedPicture, OnPictureStep, RunFailed, compute_picture
from srcli.imaging.picture import Picture
from srcli.messages import Tell
from srcli.tasks import LOADING, Job

if TYPE_CHECKING:
    from srcli.pipeline import EnginePipeline


class LocalWorker:
    """Computes in this process. Models are loaded when the first picture has been read."""

    slots = 1

    def __init__(self, factory: PipelineFactory, job: Job, tell: Tell, preview: Path | None = None) -> None:
        self._factory, self._job, self._tell, self._preview = factory, job, tell, preview
        self._thread = ThreadPoolExecutor(1, "compute")
        self._pipeline: EnginePipeline | None = None
        self._ready = self._last = self.loading = 0.0

    @property
    def present(self) -> float:
        return self._last - self._ready

    def submit(self, picture: Picture, on_step: OnPictureStep) -> Future[ComputedPicture]:
        return self._thread.submit(self._compute, picture, on_step)

    def drop(self) -> None:
        """Nothing to do: `on_step` raises at the next step."""

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _compute(self, picture: Picture, on_step: OnPictureStep) -> ComputedPicture:
        if self._pipeline is None:
            on_step(LOADING, 0, 1)
            self._pipeline = self._load()
            on_step(LOADING, 1, 1)
            self._ready = self._last = time.perf_counter()
        try:
            return compute_picture(self._pipeline, picture, self._job, on_step)
        finally:
            self._last = time.perf_counter()

    def _load(self) -> EnginePipeline:
        began = time.perf_counter()
        try:
            return self._factory.load(self._tell, self._preview)
        except Exception as error:
            raise RunFailed from error
        finally:
            self.loading += time.perf_counter() - began
