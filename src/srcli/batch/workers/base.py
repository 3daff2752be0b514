"""Types and functions that all kinds of workers share."""

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
    from srcli.sampling.resume import ResumeState
    from srcli.uncertainty.map import UncertaintyMap

LOADING = "loading"
OnPictureStep = Callable[[str, int, int], None]  # stage, done, total; an exception it raises ends the picture


@dataclass(frozen=True, slots=True)
class ComputedPicture:
    """A result, its provenance, and the seconds it took."""

    picture: Picture
    how: dict[str, object]
    seconds: float
    kept: tuple[ResumeState | None, ...] = ()  # state to resume from, until the result is written
    map: UncertaintyMap | None = None

    def settled(self) -> ComputedPicture:
        """Drop the state for resuming, once the result is written or sent to the writer."""
        for state in self.kept:
            if state is not None:
                state.drop()
        return replace(self, kept=())


class RunFailed(Exception):
    """No picture of this run can be computed; `__cause__` has the reason."""


class Workers(Protocol):
    """Computes pictures."""

    @property
    def slots(self) -> int:
        """Number of pictures to submit at a time so that no worker is idle."""
        ...

    @property
    def loading(self) -> float:
        """Seconds spent loading models."""
        ...

    @property
    def present(self) -> float:
        """Seconds from the end of loading to the last result, summed over the workers."""
        ...

    def submit(self, picture: Picture, on_step: OnPictureStep) -> Future[ComputedPicture]:
        """Compute a picture. `on_step` may be called from any thread."""
        ...

    def drop(self) -> None:
        """Cancel what is being computed."""
        ...

    def close(self) -> None: ...


def compute_picture(pipeline: EnginePipeline, picture: Picture, job: Job, on_step: OnPictureStep) -> ComputedPicture:
    """Run the pipeline on one picture. Raises RunFailed for a setting that the engine refuses."""
    began = time.perf_counter()
    try:
        picture = pipeline.repair(picture, job)
        kept = pipeline.resume_state(picture, job)
        result, found = _run_with_map(pipeline, picture, job, on_step, kept)
        how = pipeline.provenance(job, picture) | ({"map": found.facts} if found else {})
        states = (kept, *(found.kept if found else ()))
        found = found and replace(found, kept=())
        return ComputedPicture(result, how, time.perf_counter() - began, states, found)
    except SrcliError as error:
        if isinstance(error, (PictureError, MachineError)):
            raise
        raise RunFailed from error


def _run_with_map(
    pipeline: EnginePipeline, picture: Picture, job: Job, on_step: OnPictureStep, kept: ResumeState
) -> tuple[Picture, UncertaintyMap | None]:
    """The result, and the map where one is wanted."""
    if not job.mapped:
        return pipeline.run(picture, job, on_step, kept), None
    from srcli.uncertainty.map import map_uncertainty, tell_versions

    tell_versions(pipeline, job, on_step)
    result = pipeline.run(picture, job, on_step, kept)
    return result, map_uncertainty(pipeline, picture, job, result, on_step)


def timed_out(seconds: float | None, name: str = "") -> PictureError:
    """The error for a picture that took longer than `--timeout`."""
    return PictureError(f"{name}took longer than {seconds:g} seconds: raise --timeout", "timeout")
