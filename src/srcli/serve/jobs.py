"""Jobs and where they are kept: a folder a job, with a record that is replaced whole, so a restart finds them all."""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from srcli.errors import InputError
from srcli.files import make_folder, read_regular, replace_file
from srcli.serve.options import parse_options

log = logging.getLogger(__name__)
JOB_QUEUED, JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_CANCELLED = "queued", "running", "done", "failed", "cancelled"
ENDED = (JOB_DONE, JOB_FAILED, JOB_CANCELLED)
RECORD_FILE, SOURCE_FILE, MASK_FILE = "job.json", "source", "mask"
MOST_ATTEMPTS = 2
CRASHED = "the server ended twice while it worked on this; it is not tried again"
MAX_JOB_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job as it stands. `progress` goes from 0 to 1 and never back."""

    id: str
    name: str  # of the picture, as its sender called it; never used as a path
    task: str
    engine: str = "auto"
    base: str | None = None
    format: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    has_mask: bool = False
    status: str = JOB_QUEUED
    stage: str = ""
    progress: float = 0.0
    previews: int = 0  # how often the picture of what is done was renewed
    message: str = ""
    kind: str = ""  # of the error
    created: float = 0.0
    attempts: int = 0  # how often it was begun; a server that is ended in good order takes its own back
    result: str | None = None  # the result's file name
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # of "source" and "result"


class JobStore:
    """All jobs, in the order in which they came. Safe to use from several threads."""

    def __init__(self, folder: Path, most: int) -> None:
        make_folder(folder)
        _sweep(folder)
        self.folder, self._most = folder, most
        self._changed = threading.Condition()
        self._jobs = {job.id: job for job in sorted(self._found(), key=lambda job: job.created)}
        self.version = 0

    def _found(self) -> list[JobRecord]:
        """Jobs of an earlier run. What was begun and not ended is to be done again."""
        found = []
        for path in self.folder.glob(f"*/{RECORD_FILE}"):
            with suppress(OSError, ValueError, TypeError, InputError):  # not ours, or damaged: left alone
                job = parse_record(read_regular(path, MAX_JOB_BYTES))
                if job.id == path.parent.name:
                    found.append(_restart(job))
        return found

    def place(self, job: JobRecord) -> Path:
        """The job's folder."""
        return self.folder / job.id

    def result_path(self, job: JobRecord) -> Path:
        return self.place(job) / "result" / (job.result or "")

    def add(self, job: JobRecord, source: Path, mask: Path | None) -> JobRecord:
        """Take in a job whose files are moved to its folder. Raises InputError where the queue is full."""
        with self._changed:
            if len(self._jobs) >= self._most:
                raise InputError(f"there are {self._most} jobs already: remove some first")
            job = replace(job, id=secrets.token_hex(8), created=time.time(), has_mask=mask is not None)
            place = self.place(job)
            make_folder(place / "result")
            try:
                shutil.move(source, place / SOURCE_FILE)
                if mask is not None:
                    shutil.move(mask, place / MASK_FILE)
                self._write(job)
            except OSError:
                shutil.rmtree(place, ignore_errors=True)
                raise
            self._put(job)
        return job

    def get(self, name: str) -> JobRecord | None:
        return self._jobs.get(name)

    def all(self) -> list[JobRecord]:
        with self._changed:
            return list(self._jobs.values())

    def wait_for_next(self) -> JobRecord:
        """The oldest job that waits; from now on it is running."""
        with self._changed:
            while not (waiting := [job for job in self._jobs.values() if job.status == JOB_QUEUED]):
                self._changed.wait()
            return self._keep(replace(waiting[0], status=JOB_RUNNING, attempts=waiting[0].attempts + 1))

    def update(self, name: str, *, keep: bool = False, **changes: Any) -> JobRecord | None:
        """Change a job that is still there and has not ended; `keep` writes its record too."""
        with self._changed:
            job = self._jobs.get(name)
            if job is None or job.status in ENDED:
                return job
            if "progress" in changes:
                changes["progress"] = max(job.progress, changes["progress"])
            changed = replace(job, **changes)
            return self._keep(changed) if keep else self._put(changed)

    def release(self) -> None:
        """Give back the job that runs: the server ends in good order, and a later one begins the job anew."""
        with self._changed:
            for job in [job for job in self._jobs.values() if job.status == JOB_RUNNING]:
                self._keep(replace(job, status=JOB_QUEUED, attempts=job.attempts - 1, progress=0.0, stage=""))

    def cancel(self, name: str) -> JobRecord | None:
        """End a job that waits or runs; the one who runs it finds that out."""
        return self.update(name, keep=True, status=JOB_CANCELLED, message="cancelled")

    def remove(self, name: str) -> None:
        """Forget a job, with its files."""
        with self._changed:
            job = self._jobs.pop(name, None)
            self.version += 1
        if job is None:  # somebody else was quicker
            return
        shutil.rmtree(self.place(job), ignore_errors=True)

    def _keep(self, job: JobRecord) -> JobRecord:
        """On a full disk the record on it is older than the job: after a restart the job is done again."""
        try:
            self._write(job)
        except OSError as error:
            log.warning(f"the record of job {job.id} cannot be written ({error.strerror})")
        return self._put(job)

    def _put(self, job: JobRecord) -> JobRecord:
        self._jobs[job.id] = job
        self.version += 1
        self._changed.notify_all()
        return job

    def _write(self, job: JobRecord) -> None:
        with replace_file(self.place(job) / RECORD_FILE) as fresh:
            fresh.write_text(json.dumps(asdict(job)), encoding="utf-8")


def _restart(job: JobRecord) -> JobRecord:
    """The job as a new server takes it over. One that servers died of is not tried for ever."""
    if job.status in ENDED:
        return job
    if job.attempts >= MOST_ATTEMPTS:
        return replace(job, status=JOB_FAILED, kind="crash", message=CRASHED)
    return replace(job, status=JOB_QUEUED, progress=0.0, stage="")


def parse_record(text: bytes) -> JobRecord:
    """A record as it was written. Raises ValueError, TypeError or InputError where it cannot be one."""
    fields = json.loads(text)
    job = JobRecord(**fields)
    options = parse_options(json.dumps(dict(job.options)))  # JSON knows no tuples
    if not isinstance(job.created, int | float) or (
        job.status == JOB_DONE and not {"source", "result"} <= job.sizes.keys()
    ):
        raise ValueError("not a record")
    return replace(job, options=options)


def _sweep(folder: Path) -> None:
    """Remove what a server that was killed left half received or half packed."""
    for path in folder.glob(".upload-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".zip-*"):
        path.unlink(missing_ok=True)
