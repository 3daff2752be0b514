"""What every way of computing pictures has in common."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from srcli.errors import MachineError, PictureError, SrcliError
from srcli.imaging.picture import Picture
from srcli.tasks import Job

if TYPE_CHECKING:
    from srcli.pipeline import EnginePipeline
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
        """Seconds from the end of loading to the last result, summed over the workers."""
        ...

    def submit(self, picture: Picture, on_step: OnStep) -> Future[Result]:
        """Compute a picture. `on_step` may be called from any thread."""
        ...

    def drop(self) -> None:
        """Abandon what is being computed: nobody waits for it any more."""
        ...

    def close(self) -> None: ...


def compute_picture(pipeline: EnginePipeline, picture: Picture, job: Job, on_step: OnStep) -> Result:
    """Run the pipeline on one picture. A setting that the engine refuses would be refused for all: RunFailed."""
    began = time.perf_counter()
    try:
        kept = pipeline.unfinished(picture, job)
        result = pipeline.run(picture, job, on_step, kept)
        return Result(result, pipeline.made(job, picture), time.perf_counter() - began, kept)
    except SrcliError as error:
        if isinstance(error, (PictureError, MachineError)):
            raise
        raise RunFailed from error
