"""Where pictures are computed: here, in one thread, with one loaded pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from srcli.batch.settings import PipelineFactory
from srcli.errors import MachineError, PictureError, SrcliError
from srcli.imaging.picture import Picture
from srcli.tasks import Job

if TYPE_CHECKING:
    from srcli.pipeline import Pipeline
    from srcli.sampling.unfinished import Unfinished

LOADING = "loading"
OnStep = Callable[[str, int, int], None]  # stage, done, of; what it raises ends the picture
Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """A result, how it was made, and how long that took."""

    picture: Picture
    how: dict[str, object]
    seconds: float
    kept: Unfinished | None = None  # what there is to resume from, until it is written

    def settled(self) -> Result:
        """Written, or on its way to whoever writes it: nobody will resume it."""
        if self.kept is not None:
            self.kept.drop()
        return replace(self, kept=None)


class RunFailed(Exception):
    """No picture of this run can be made. The reason is its cause."""


class Workers(Protocol):
    """Computes pictures."""

    @property
    def slots(self) -> int:
        """How many pictures it wants at once, to have no idle moment."""
        ...

    @property
    def loading(self) -> float:
        """Seconds that went into loading models."""
        ...

    @property
    def present(self) -> float:
        """Seconds that its workers have been there, loaded, until the last result; of all of them together."""
        ...

    def submit(self, picture: Picture, on_step: OnStep) -> Future[Result]:
        """Compute a picture. `on_step` may be called from any thread."""
        ...

    def drop(self) -> None:
        """Let go of what is being computed: nobody waits for it any more."""
        ...

    def close(self) -> None: ...


class LocalWorker:
    """This process. Models are loaded when the first picture is ready for them, and not before."""

    slots = 1

    def __init__(self, factory: PipelineFactory, job: Job, tell: Notify, preview: Path | None = None) -> None:
        self._factory, self._job, self._tell, self._preview = factory, job, tell, preview
        self._thread = ThreadPoolExecutor(1, "compute")
        self._pipeline: Pipeline | None = None
        self._ready = self._last = self.loading = 0.0

    @property
    def present(self) -> float:
        return self._last - self._ready

    def submit(self, picture: Picture, on_step: OnStep) -> Future[Result]:
        return self._thread.submit(self._make, picture, on_step)

    def drop(self) -> None:
        """The next step does, by what `on_step` raises."""

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _make(self, picture: Picture, on_step: OnStep) -> Result:
        if self._pipeline is None:
            on_step(LOADING, 0, 1)
            self._pipeline = self._load()
            on_step(LOADING, 1, 1)
            self._ready = self._last = time.perf_counter()
        try:
            return compute_picture(self._pipeline, picture, self._job, on_step)
        finally:
            self._last = time.perf_counter()

    def _load(self) -> Pipeline:
        began = time.perf_counter()
        try:
            return self._factory.load(self._tell, self._preview)
        except Exception as error:
            raise RunFailed from error
        finally:
            self.loading += time.perf_counter() - began


def compute_picture(pipeline: Pipeline, picture: Picture, job: Job, on_step: OnStep) -> Result:
    """One picture's computing. A setting that the engine refuses would be refused for every other picture too."""
    began = time.perf_counter()
    try:
        kept = pipeline.unfinished(picture, job)
        result = pipeline.run(picture, job, on_step, kept)
        return Result(result, pipeline.made(job, picture), time.perf_counter() - began, kept)
    except SrcliError as error:
        if isinstance(error, (PictureError, MachineError)):
            raise
        raise RunFailed from error
