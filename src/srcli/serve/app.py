"""The routes: the page, its parts, and jobs over HTTP. `page/openapi.json` describes them."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from srcli.engines.registry import all_engines
from srcli.errors import InputError, SrcliError
from srcli.files import name_beside
from srcli.imaging.formats import writable_formats
from srcli.serve.guard import BodyTooLarge, BodyTooSlow, Guard, answer_error
from srcli.serve.jobs import ENDED, JOB_DONE, JobRecord, JobStore
from srcli.serve.naming import download_name, name_map
from srcli.serve.orders import parse_order
from srcli.serve.settings import ServerLimits, ServerSettings
from srcli.serve.worker import JobWorker, write_job_comparison
from srcli.settings import MAP_ENDING, Repair
from srcli.weights.store import Store

PAGE_FILES = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css", "/v1/openapi.json": "openapi.json"}
CONTENT_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "json": "application/json"}
CHUNK_BYTES = 1 << 20
SEND_A_FORM = "send a multipart form with a file named `image`"
POLL_INTERVAL = 0.2  # seconds between checks for changes


def create_app(settings: ServerSettings, store: JobStore, worker: JobWorker) -> Starlette:
    """Create the application. It starts the worker and stops it at its end."""

    @asynccontextmanager
    async def run_worker(app: Starlette) -> AsyncIterator[None]:
        worker.start()
        yield
        worker.close()

    # It warns of every malformed form, which its sender is told of; the server's stderr is not for that.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    server = Server(store, worker, settings.limits)
    routes = [Route(path, server.send_part) for path in PAGE_FILES]
    routes.append(Route("/favicon.ico", lambda request: Response(status_code=204)))  # browsers request it
    routes += [
        Route("/v1/choices", server.list_choices),
        Route("/v1/events", server.stream_all),
        Route("/v1/results.zip", server.send_zip),
        Route("/v1/jobs", server.list_jobs, methods=["GET"]),
        Route("/v1/jobs", server.create_job, methods=["POST"]),
        Route("/v1/jobs/{id}", server.show_job, methods=["GET"]),
        Route("/v1/jobs/{id}", server.delete_job, methods=["DELETE"]),
        Route("/v1/jobs/{id}/events", server.stream_one),
        Route("/v1/jobs/{id}/result", server.send_result),
        Route("/v1/jobs/{id}/preview", server.send_preview),
        Route("/v1/jobs/{id}/map", server.send_map),
        Route("/v1/jobs/{id}/compare", server.send_comparison),
    ]
    handlers: dict[Any, Any] = {
        InputError: _make_handler(400, "input"),
        SrcliError: _make_handler(500, "failed"),
        BodyTooLarge: _make_handler(413, "too-large", "the body is larger than this server accepts"),
        BodyTooSlow: _make_handler(408, "too-slow", "the body did not arrive in time"),
        ClientDisconnect: _make_handler(400, "disconnected", "the client disconnected"),
        HTTPException: _answer_http,
        OSError: _answer_machine,
        RuntimeError: _make_handler(500, "unexpected", "the server cannot send this"),
    }
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, settings=settings)],
        exception_handlers=handlers,
        lifespan=run_worker,
    )


def _make_handler(status: int, kind: str, message: str | None = None) -> Any:
    async def handle(request: Request, error: Exception) -> Response:
        return answer_error(status, kind, message or str(error))

    return handle


async def _answer_http(request: Request, error: HTTPException) -> Response:
    return answer_error(error.status_code, "http", error.detail)


async def _answer_machine(request: Request, error: OSError) -> Response:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return answer_error(507 if full else 500, "machine", f"the server's disk: {error.strerror}")


class Server:
    """The handlers of the routes, for one store."""

    def __init__(self, store: JobStore, worker: JobWorker, limits: ServerLimits) -> None:
        self._store, self._worker, self._limits = store, worker, limits

    async def send_part(self, request: Request) -> Response:
        name = PAGE_FILES[request.url.path]
        text = (resources.files("srcli.serve") / "page" / name).read_text(encoding="utf-8")
        return Response(text, media_type=CONTENT_TYPES[name.rpartition(".")[2]])

    async def list_choices(self, request: Request) -> Response:
        """The engines, base models and formats that a job can use on this machine."""
        store = Store(offline=True)
        here = set(await run_in_threadpool(store.list_here))
        engines = {name: {"title": spec.title, "tasks": sorted(spec.tasks)} for name, spec in all_engines().items()}
        return JSONResponse(
            {
                "engines": engines,
                "bases": [name for name in store.bases() if name in here],
                "formats": [row.name.lower() for row in writable_formats()],
                "scratches": await run_in_threadpool(_find_missing_detector, store),
            }
        )

    async def list_jobs(self, request: Request) -> Response:
        return JSONResponse({"jobs": [describe_job(job) for job in self._store.all()]})

    async def create_job(self, request: Request) -> Response:
        form = await _parse_form(request)
        try:
            job = await self._add_job(form)
        finally:
            await form.close()
        return JSONResponse(describe_job(job), 201, {"location": f"/v1/jobs/{job.id}"})

    async def _add_job(self, form: FormData) -> JobRecord:
        files = {name: value for name, value in form.multi_items() if isinstance(value, UploadFile)}
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        if unknown := sorted(files.keys() - {"image", "mask"}):
            raise InputError(f"`{unknown[0]}` is not a file field: send `image`, and `mask` if you have one")
        if "image" not in files:
            raise InputError(f"`image` is missing: {SEND_A_FORM}")
        order = parse_order(files["image"].filename or "picture", fields, masked="mask" in files)
        with tempfile.TemporaryDirectory(dir=self._store.folder, prefix=".upload-") as folder:
            paths = {name: Path(folder) / name for name in files}
            for name, path in paths.items():
                await _save_upload(files[name], path)
            return await run_in_threadpool(self._store.add, order, paths["image"], paths.get("mask"))

    def _find(self, request: Request) -> JobRecord:
        if (job := self._store.get(request.path_params["id"])) is None:
            raise HTTPException(404, "there is no such job")
        return job

    def _find_done(self, request: Request) -> JobRecord:
        job = self._find(request)
        if job.status != JOB_DONE:
            raise HTTPException(409, f"the job is {job.status}")
        return job

    async def show_job(self, request: Request) -> Response:
        return JSONResponse(describe_job(self._find(request)))

    async def delete_job(self, request: Request) -> Response:
        """Cancel a job that waits or runs; remove one that has ended, with its files."""
        job = self._find(request)
        if job.status in ENDED:
            await run_in_threadpool(self._store.remove, job.id)
        else:
            await run_in_threadpool(self._store.cancel, job.id)
        return Response(status_code=204)

    async def send_result(self, request: Request) -> Response:
        job = self._find_done(request)
        return FileResponse(
            self._store.result_path(job), headers={"content-disposition": name_attachment(download_name(job))}
        )

    async def send_map(self, request: Request) -> Response:
        """Send the map of uncertainty, if the job asked for one."""
        job = self._find_done(request)
        path = name_beside(self._store.result_path(job), MAP_ENDING)
        if not path.is_file():
            raise HTTPException(404, "the job did not ask for a map")
        return FileResponse(path, headers={"content-disposition": name_attachment(name_map(job))})

    async def send_preview(self, request: Request) -> Response:
        """Send a picture of the running job: the finished part over its input."""
        job = self._find(request)
        if (shown := self._worker.preview) is None or shown[0] != job.id or job.status in ENDED:
            raise HTTPException(404, "the job is not running")
        return Response(await run_in_threadpool(shown[1].encode), media_type="image/jpeg")

    async def send_comparison(self, request: Request) -> Response:
        """Send the page of `srcli compare`, whose head holds the content policy for its inline script."""
        job = self._find_done(request)
        page = await run_in_threadpool(write_job_comparison, self._store, job, self._limits)
        policy = "base-uri 'none'; frame-ancestors 'none'"
        return FileResponse(page, media_type="text/html", headers={"content-security-policy": policy})

    async def send_zip(self, request: Request) -> Response:
        jobs = [job for job in self._store.all() if job.status == JOB_DONE]
        if not jobs:
            raise HTTPException(404, "no job is done yet")
        file = await run_in_threadpool(_pack_results, self._store, jobs)
        headers = {"content-disposition": name_attachment("srcli-results.zip"), "content-length": str(file.tell())}
        file.seek(0)
        return StreamingResponse(_read_pieces(file), media_type="application/zip", headers=headers)

    async def stream_all(self, request: Request) -> Response:
        return _stream_events(self._watch_all(request))

    async def stream_one(self, request: Request) -> Response:
        return _stream_events(self._watch_job(request, self._find(request).id))

    async def _watch_all(self, request: Request) -> AsyncIterator[str]:
        sent = -1
        async for _ in _ticks(request):
            if self._store.version != sent:
                sent = self._store.version
                yield _format_event({"jobs": [describe_job(job) for job in self._store.all()]})

    async def _watch_job(self, request: Request, name: str) -> AsyncIterator[str]:
        last = None
        async for _ in _ticks(request):
            job = self._store.get(name)
            if job is None:
                return
            if job != last:
                last = job
                yield _format_event(describe_job(job))
            if job.status in ENDED:
                return


def describe_job(job: JobRecord) -> dict[str, Any]:
    """The fields of a job that clients get."""
    fields = asdict(job)
    fields["preview"] = (
        f"/v1/jobs/{job.id}/preview?{job.previews}" if job.previews and job.status not in ENDED else None
    )
    fields["download"] = f"/v1/jobs/{job.id}/result" if job.status == JOB_DONE else None
    return fields


def name_attachment(name: str) -> str:
    """The header that makes browsers save the answer under this name."""
    return f"attachment; filename*=UTF-8''{quote(name)}"


def _find_missing_detector(store: Store) -> str:
    """What it takes to get the scratch detector, in words for the page; empty if it can be opened."""
    if store.can_open(Repair().mask_model, allow_pickle=False):
        return ""
    return "a first run of srcli restore-old-photo --mask auto --allow-pickle"


async def _parse_form(request: Request) -> FormData:
    """The form of a request. Raises InputError if it is malformed."""
    try:
        return await request.form(max_files=2, max_fields=8)
    except HTTPException as error:
        raise InputError(f"the form cannot be read ({error.detail.rstrip('.')}): {SEND_A_FORM}") from error


async def _save_upload(upload: UploadFile, path: Path) -> None:
    with path.open("wb") as file:
        while piece := await upload.read(CHUNK_BYTES):
            await run_in_threadpool(file.write, piece)


def _pack_results(store: JobStore, jobs: list[JobRecord]) -> IO[bytes]:
    """All results in one file, which is deleted when it is closed. Not compressed, since pictures are already."""
    file = tempfile.TemporaryFile(dir=store.folder, prefix=".zip-")  # noqa: SIM115  # closed by _read_pieces
    try:
        _fill_zip(file, store, jobs)
        file.seek(0, os.SEEK_END)
    except BaseException:
        file.close()
        raise
    return file


def _read_pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


def _fill_zip(file: IO[bytes], store: JobStore, jobs: list[JobRecord]) -> None:
    taken: dict[str, int] = {}
    with zipfile.ZipFile(file, "w") as archive:
        for job in jobs:
            if not store.result_path(job).is_file():  # removed in the meantime
                continue
            name = download_name(job)
            taken[name] = number = taken.get(name, 0) + 1
            stem, dot, suffix = name.rpartition(".")
            archive.write(store.result_path(job), name if number == 1 else f"{stem}_{number}{dot}{suffix}")


async def _ticks(request: Request) -> AsyncIterator[None]:
    while not await request.is_disconnected():
        yield
        await asyncio.sleep(POLL_INTERVAL)


def _stream_events(events: AsyncIterator[str]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream")


def _format_event(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
