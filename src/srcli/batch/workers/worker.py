"""One of several workers, in its own process: a pipeline, and replies that can be pickled."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from srcli.batch.settings import PipelineFactory
from srcli.batch.workers.base import ComputedPicture, RunFailed, compute_picture
from srcli.errors import MachineError, SrcliError
from srcli.imaging.picture import Picture
from srcli.tasks import Job

if TYPE_CHECKING:
    from srcli.pipeline import EnginePipeline


@dataclass(frozen=True, slots=True)
class Reply:
    """The result of a worker's call or its error, and the messages for the user."""

    result: ComputedPicture | BaseException | None
    messages: list[str]
    node: str = ""  # of a cluster


class Worker:
    """Loads one pipeline and computes one picture at a time with it."""

    def __init__(self, factory: PipelineFactory, job: Job) -> None:
        self._factory, self._job = factory, job
        self._pipeline: EnginePipeline | None = None
        self._messages: list[str] = []
        self.node = ""

    def load(self) -> Reply:
        return self._reply(self._load)

    def compute(self, picture: Picture) -> Reply:
        return self._reply(partial(self._compute, picture))

    def _load(self) -> None:
        self._pipeline = self._factory.load(self._messages.append)

    def _compute(self, picture: Picture) -> ComputedPicture:
        if self._pipeline is None:
            raise MachineError("a worker was not ready: run again")
        return compute_picture(self._pipeline, picture, self._job, lambda stage, done, total: None).drop_resume_states()

    def _reply(self, work: Callable[[], ComputedPicture | None]) -> Reply:
        """Return errors as results: a worker whose call raises counts as dead."""
        result: ComputedPicture | BaseException | None
        try:
            result = work()
        except RunFailed as error:
            result = _make_picklable(error.__cause__ or error)
        except Exception as error:
            result = _make_picklable(error)
        messages = self._messages.copy()
        self._messages.clear()
        return Reply(result, messages, self.node)


def _make_picklable(error: BaseException) -> BaseException:
    """The error, or a RuntimeError with its text if it cannot be pickled."""
    if isinstance(error, SrcliError):
        return error
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
