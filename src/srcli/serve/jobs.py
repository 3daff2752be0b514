"""Jobs: one folder each, with a record that is replaced atomically, so that a restart finds them all."""

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
    """The state of a job. `progress` goes from 0 to 1 and never decreases."""

    id: str
    name: str  # of the picture, from the client; never used as a path
    task: str
    engine: str = "auto"
    base: str | None = None
    format: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    has_mask: bool = False
    status: str = JOB_QUEUED
    stage: str = ""
    progress: float = 0.0
    previews: int = 0  # number of updates of the preview
    message: str = ""
    kind: str = ""  # of the error
    created: float = 0.0
    attempts: int = 0  # times it was started, without those that a regular shutdown interrupted
    result: str | None = None  # the result's file name
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # of "source" and "result"


class JobStore:
    """All jobs, in the order they were added. Safe to use from several threads."""

    def __init__(self, folder: Path, most_jobs: int) -> None:
        make_folder(folder)
        _remove_leftovers(folder)
        self.folder, self._most_jobs = folder, most_jobs
        self._changed = threading.Condition()
        self._jobs = {job.id: job for job in sorted(self._read_jobs(), key=lambda job: job.created)}
        self.version = 0

    def _read_jobs(self) -> list[JobRecord]:
        """Jobs of an earlier run. Those that were interrupted are queued again."""
        found = []
        for path in self.folder.glob(f"*/{RECORD_FILE}"):
            with suppress(OSError, ValueError, TypeError, InputError):  # not a job, or damaged: ignored
                job = parse_record(read_regular(path, MAX_JOB_BYTES))
                if job.id == path.parent.name:
                    found.append(_restart_job(job))
        return found

    def place(self, job: JobRecord) -> Path:
        return self.folder / job.id

    def result_path(self, job: JobRecord) -> Path:
        return self.place(job) / "result" / (job.result or "")

    def add(self, job: JobRecord, source: Path, mask: Path | None) -> JobRecord:
        """Add a job and move its files to its folder. Raises InputError if there are too many jobs."""
        with self._changed:
            if len(self._jobs) >= self._most_jobs:
                raise InputError(f"there are {self._most_jobs} jobs already: remove some first")
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
        """Wait for a job and mark it as running; the oldest comes first."""
        with self._changed:
            while not (waiting := [job for job in self._jobs.values() if job.status == JOB_QUEUED]):
                self._changed.wait()
            return self._save(replace(waiting[0], status=JOB_RUNNING, attempts=waiting[0].attempts + 1))

    def update(self, name: str, *, save: bool = False, **changes: Any) -> JobRecord | None:
        """Change a job, unless it was removed or has ended; `save` writes its record too."""
        with self._changed:
            job = self._jobs.get(name)
            if job is None or job.status in ENDED:
                return job
            if "progress" in changes:
                changes["progress"] = max(job.progress, changes["progress"])
            changed = replace(job, **changes)
            return self._save(changed) if save else self._put(changed)

    def release(self) -> None:
        """Queue the running job again, because the server shuts down; a later one starts it from the beginning."""
        with self._changed:
            for job in [job for job in self._jobs.values() if job.status == JOB_RUNNING]:
                self._save(replace(job, status=JOB_QUEUED, attempts=job.attempts - 1, progress=0.0, stage=""))

    def cancel(self, name: str) -> JobRecord | None:
        """Cancel a job that waits or runs; the worker checks for it."""
        return self.update(name, save=True, status=JOB_CANCELLED, message="cancelled")

    def remove(self, name: str) -> None:
        with self._changed:
            job = self._jobs.pop(name, None)
            self.version += 1
        if job is None:  # removed by another request
            return
        shutil.rmtree(self.place(job), ignore_errors=True)

    def _save(self, job: JobRecord) -> JobRecord:
        """Write the record and update the job. If the disk is full, a restart repeats the job from the older record."""
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


def _restart_job(job: JobRecord) -> JobRecord:
    """The job after a restart of the server. A job that crashed the server too often fails."""
    if job.status in ENDED:
        return job
    if job.attempts >= MOST_ATTEMPTS:
        return replace(job, status=JOB_FAILED, kind="crash", message=CRASHED)
    return replace(job, status=JOB_QUEUED, progress=0.0, stage="")


def parse_record(text: bytes) -> JobRecord:
    """Parse a record. Raises ValueError, TypeError or InputError if it is not one."""
    fields = json.loads(text)
    job = JobRecord(**fields)
    options = parse_options(json.dumps(dict(job.options)))  # restores tuples, which JSON lacks
    if not isinstance(job.created, int | float) or (
        job.status == JOB_DONE and not {"source", "result"} <= job.sizes.keys()
    ):
        raise ValueError("not a record")
    return replace(job, options=options)


def _remove_leftovers(folder: Path) -> None:
    """Remove uploads and archives that a killed server left unfinished."""
    for path in folder.glob(".upload-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".zip-*"):
        path.unlink(missing_ok=True)
