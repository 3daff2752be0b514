"""Types and functions that all kinds of workers share."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from srcli.errors import MachineError, PictureError, SrcliError
from srcli.imaging.picture import Picture
from srcli.tasks import Job

if TYPE_CHECKING:
    from srcli.pipeline import EnginePipeline
    from srcli.sampling.resume import ResumeState
    from srcli.uncertainty.map import UncertaintyMap

OnPictureStep = Callable[[str, int, int], None]  # stage, done, total; an exception it raises ends the picture


@dataclass(frozen=True, slots=True)
class ComputedPicture:
    """A result, its provenance, the seconds it took, and its map of uncertainty if one was asked for."""

    picture: Picture
    provenance: dict[str, object]
    seconds: float
    resume_states: tuple[ResumeState, ...] = ()  # needed until the result is written
    map: NDArray[np.uint8] | None = None

    def drop_resume_states(self) -> ComputedPicture:
        """Drop the state for resuming, once the result is written or sent to the writer."""
        for state in self.resume_states:
            state.delete()
        return replace(self, resume_states=())


class RunFailed(Exception):
    """No picture of this run can be computed; `__cause__` has the reason."""


class Workers(Protocol):
    """Computes pictures."""

    @property
    def slots(self) -> int:
        """Number of pictures to submit at a time so that no worker is idle."""

    @property
    def loading(self) -> float:
        """Seconds spent loading models."""

    @property
    def present(self) -> float:
        """Seconds from the end of loading to the last result, summed over the workers."""

    def submit(self, picture: Picture, on_step: OnPictureStep) -> Future[ComputedPicture]:
        """Compute a picture. `on_step` may be called from any thread."""

    def drop(self) -> None:
        """Cancel what is being computed."""

    def close(self) -> None: ...


def compute_picture(pipeline: EnginePipeline, picture: Picture, job: Job, on_step: OnPictureStep) -> ComputedPicture:
    """Run the pipeline on one picture. Raises RunFailed for a setting that the engine refuses."""
    began = time.perf_counter()
    try:
        picture = pipeline.repair(picture, job, on_step)
        state = pipeline.resume_state(picture, job)
        result, found = _run_with_map(pipeline, picture, job, on_step, state)
        provenance = pipeline.provenance(job, picture) | ({"map": found.facts} if found else {})
        states = (state, *(found.resume_states if found else ()))
        levels = found.levels if found else None
        return ComputedPicture(result, provenance, time.perf_counter() - began, states, levels)
    except SrcliError as error:
        if isinstance(error, (PictureError, MachineError)):
            raise
        raise RunFailed from error


def _run_with_map(
    pipeline: EnginePipeline, picture: Picture, job: Job, on_step: OnPictureStep, state: ResumeState
) -> tuple[Picture, UncertaintyMap | None]:
    """Compute the result, and its map if the job asks for one."""
    if not job.mapped:
        return pipeline.run(picture, job, on_step, state), None
    from srcli.uncertainty.map import map_uncertainty, report_versions  # imports torch

    report_versions(pipeline, job, on_step)
    result = pipeline.run(picture, job, on_step, state)
    return result, map_uncertainty(pipeline, picture, job, result, on_step)


def timed_out(seconds: float | None, name: str = "") -> PictureError:
    """The error for a picture that took longer than `--timeout`."""
    return PictureError(f"{name}took longer than {seconds:g} seconds: raise --timeout", "timeout")
