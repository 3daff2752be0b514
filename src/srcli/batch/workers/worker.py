"""One worker of many, in a process of its own: a pipeline, and replies that can be sent."""

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
    """What a worker made, or what went wrong, and what was said on the way."""

    result: ComputedPicture | BaseException | None
    said: list[str]
    node: str = ""  # of a cluster


class Worker:
    """Loads one pipeline and computes one picture at a time with it."""

    def __init__(self, factory: PipelineFactory, job: Job) -> None:
        self._factory, self._job = factory, job
        self._pipeline: EnginePipeline | None = None
        self._said: list[str] = []
        self.node = ""

    def load(self) -> Reply:
        """Make ready."""
        return self._reply(self._load)

    def compute(self, picture: Picture) -> Reply:
        """Compute a picture."""
        return self._reply(partial(self._compute, picture))

    def _load(self) -> None:
        self._pipeline = self._factory.load(self._said.append)

    def _compute(self, picture: Picture) -> ComputedPicture:
        if self._pipeline is None:
            raise MachineError("a worker was not ready: run again")
        return compute_picture(self._pipeline, picture, self._job, lambda stage, done, total: None).settled()

    def _reply(self, work: Callable[[], ComputedPicture | None]) -> Reply:
        """An error is a result too: a worker that raises is a lost one."""
        result: ComputedPicture | BaseException | None
        try:
            result = work()
        except RunFailed as error:
            result = _sendable(error.__cause__ or error)
        except Exception as error:
            result = _sendable(error)
        said = self._said.copy()
        self._said.clear()
        return Reply(result, said, self.node)


def _sendable(error: BaseException) -> BaseException:
    """The error, or its text where its class cannot be made anew at the other end."""
    if isinstance(error, SrcliError):
        return error
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
