"""Download from the Hub: the listing of a commit, and its files, resuming interrupted downloads.

huggingface_hub restarts a broken download (since 2.0, because locks are silent no-ops on some cluster disks). Here a
download is written to a file named by its hash and resumed by range requests, in this run or a later one. Two
processes that download at the same time write the same bytes to the same positions, and the final name appears only
after the hash is checked, so correctness does not depend on locks.
"""

import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from io import RawIOBase
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from srcli.errors import WeightsError
from srcli.files import is_regular, open_own_file, path_or_link_exists
from srcli.weights.cache import cache_write_error
from srcli.weights.listing import LARGEST_LISTING, Commit, NotTheHub, Remote, parse_commit

HOME = "https://huggingface.co"
MAX_TRIES = 5
LONGEST_WAIT = 60.0
NAP = 0.2
PACE_WINDOW = 60.0  # seconds
SLOWEST_RATE = 1000  # bytes a second, on average over a window
CONNECT_TIMEOUT = 4.0
CONNECT_PATIENCE = 5.0  # seconds after which connecting is not tried again
LONGEST_ANSWER = 120.0  # seconds for the list of a repository's files
BUSY = (408, 425, 429, 500, 502, 503, 504)
T = TypeVar("T")
OnBytes = Callable[[int], None]  # bytes on disk so far; fewer than before if a download restarts


class RetryLater(Exception):
    """A temporary failure. `wait`: seconds to wait, from the server. `connected`: whether there was a connection."""

    def __init__(self, message: str, wait: float | None = None, connected: bool = True) -> None:
        super().__init__(message)
        self.wait, self.connected = wait, connected


@dataclass(frozen=True)
class Hub:
    """The Hub, or the mirror in HF_ENDPOINT. `pause`: seconds before the first retry."""

    endpoint: str
    pause: float = 1.0
    tries: int = MAX_TRIES

    @property
    def printable_endpoint(self) -> str:
        """The endpoint for messages, without a password."""
        scheme, slashes, rest = self.endpoint.rpartition("://")
        host, slash, path = rest.partition("/")
        return scheme + slashes + host.rpartition("@")[2] + slash + path

    def commit(self, repo: str, revision: str | None) -> Commit:
        """The commit of a revision (None: the main branch), with its files."""
        commit: Commit = self._retry(
            repo,
            lambda: within(LONGEST_ANSWER, lambda: self._commit(repo, revision)),
            patience=CONNECT_PATIENCE,
        )
        return commit

    def _commit(self, repo: str, revision: str | None) -> Commit:
        from huggingface_hub import constants

        url = f"{self.endpoint}/api/models/{repo}"
        if revision is not None:
            url += "/revision/" + quote(revision, safe="")
        with (
            self._translated(repo),
            self._answer(url + "?blobs=true", {}, constants.HF_HUB_ETAG_TIMEOUT) as answer,
        ):
            self._check_status(answer, repo, revision or "main")
            return parse_commit(repo, read_limited(answer, LARGEST_LISTING))

    def fetch(self, repo: str, revision: str, remote: Remote, part: Path, on_bytes: OnBytes) -> None:
        """Download a file to `part`, resuming after the bytes that are already there."""
        from huggingface_hub import constants

        def once() -> None:
            quiet = max(PACE_WINDOW, constants.HF_HUB_DOWNLOAD_TIMEOUT)  # a longer timeout of the user's is respected
            within(quiet, lambda: self._fetch(repo, revision, remote, part, on_bytes), lambda: _held(part))

        self._retry(repo, once, lambda: _held(part), lambda: on_bytes(_held(part)))

    def _fetch(self, repo: str, revision: str, remote: Remote, part: Path, on_bytes: OnBytes) -> None:
        from huggingface_hub import constants

        start = _start(part, remote.size)
        on_bytes(start)
        if start == remote.size and part.exists():
            return
        headers = {"Range": f"bytes={start}-"} if start else {}
        with (
            self._translated(repo),
            self._answer(self._url(repo, revision, remote.path), headers, constants.HF_HUB_DOWNLOAD_TIMEOUT) as answer,
        ):
            if answer.status_code == 416:  # the part is not of this file
                part.unlink(missing_ok=True)
                raise RetryLater(f"there is no such range of {remote.path}")
            self._check_status(answer, repo, revision, remote.path)
            if answer.headers.get("Content-Type", "").startswith("text/html") and not remote.path.endswith(".html"):
                raise NotTheHub("a page")
            start = start if answer.status_code == 206 and _goes_on(answer.headers, start) else 0
            _write(part, start, require_pace(plain_bytes(answer)), remote, on_bytes)

    def _url(self, repo: str, revision: str, path: str) -> str:
        from huggingface_hub import hf_hub_url

        return str(hf_hub_url(repo, path, revision=revision, endpoint=self.endpoint))

    def _headers(self) -> dict[str, str]:
        """The library's headers, with the user's token."""
        from huggingface_hub.utils._headers import build_hf_headers

        return dict(build_hf_headers())

    def _answer(self, url: str, headers: dict[str, str], timeout: float, method: str = "GET") -> Any:
        """Request a URL, as a context manager; uncompressed, since a compressed answer could expand to any size."""
        from huggingface_hub import get_session

        headers = self._headers() | {"Accept-Encoding": "identity"} | headers
        timeouts = (min(timeout, CONNECT_TIMEOUT), timeout, timeout, timeout)  # connect, read, write, pool
        return get_session().stream(method, url, headers=headers, timeout=timeouts, follow_redirects=True)

    def _retry(
        self,
        repo: str,
        once: Callable[[], Any],
        held: Callable[[], int] = lambda: 0,
        awake: Callable[[], None] = lambda: None,
        patience: float = math.inf,
    ) -> Any:
        """Call `once` until it succeeds, with growing pauses and up to `tries` times; progress resets the count.

        Without a connection there is no retry after `patience` seconds. `awake` is called repeatedly during a pause,
        and may raise to end it.
        """
        failed, before = 0, held()
        began, first = time.monotonic(), before
        while True:
            try:
                return once()
            except RetryLater as error:
                slow = _trickles(held() - first, time.monotonic() - began)
                failed = failed + 1 if held() <= before or slow else 1
                before = max(before, held())
                waited = not error.connected and time.monotonic() - began > patience
                if failed >= self.tries or waited:
                    raise WeightsError(f"{repo}: {error}: try again later, what is here is kept") from error
                _sleep(self._wait(failed, error.wait), awake)

    def _wait(self, failed: int, asked: float | None) -> float:
        if asked is not None:
            return min(asked, LONGEST_WAIT)
        return self.pause * 2.0 ** (failed - 1) * random.uniform(0.5, 1.0)

    @contextmanager
    def _translated(self, repo: str) -> Iterator[None]:
        """Translate the library's exceptions. Their texts are dropped, since they may contain signed URLs."""
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        # httpx or httpx2, whichever this version of the library uses
        http: Any = import_module(HfHubHTTPError.__bases__[0].__module__)
        try:
            yield
        except OfflineModeIsEnabled as error:
            raise WeightsError(f"{repo} is not here and HF_HUB_OFFLINE is set: unset it, or pull elsewhere") from error
        except (ValueError, http.InvalidURL) as error:  # a login page, or an endpoint that is no url
            raise self._not_understood() from error
        except http.HTTPError as error:
            message = f"{self.printable_endpoint} cannot be reached or broke off ({type(error).__name__})"
            connected = not isinstance(error, (http.ConnectError, http.ConnectTimeout))
            raise RetryLater(message, connected=connected) from error

    def _not_understood(self) -> WeightsError:
        message = f"{self.printable_endpoint} does not answer like the Hub (a login page?)"
        return WeightsError(f"{message}: check the network, the proxy and HF_ENDPOINT")

    def _check_status(self, answer: Any, repo: str, revision: str, path: str | None = None) -> None:
        """Raise for any answer but success. The body of an error is not read: it could be endless."""
        code, kind = answer.status_code, answer.headers.get("X-Error-Code")
        if code in (200, 206):
            return
        if code in BUSY:
            raise RetryLater(f"the Hub answers {code}", retry_after(answer.headers))
        if kind == "GatedRepo" or code == 403:
            page = f"{self.printable_endpoint}/{repo}"
            raise WeightsError(f"{repo} is gated: accept its terms at {page}, then set HF_TOKEN to a read token")
        if kind == "RevisionNotFound":
            raise WeightsError(f"{repo} has no revision {revision}: check it, or run srcli models lock")
        if kind == "EntryNotFound" or (code == 404 and path is not None):
            raise WeightsError(f"{repo}@{revision[:8]} has no {path}: check the lock, or run srcli models lock")
        if code in (401, 404):
            raise WeightsError(f"{repo} is not on the Hub, or private: check the name, or set HF_TOKEN to a read token")
        raise WeightsError(f"{repo}: the Hub answers {code}: try again later")


def within(seconds: float, work: Callable[[], T], moved: Callable[[], object] = lambda: None) -> T:
    """Run `work` in a thread; WeightsError if `moved()` does not change for this many seconds.

    The HTTP library's timeout restarts with every byte, so a header that arrives byte by byte would never time out.
    """
    settled: Future[T] = Future()
    threading.Thread(target=_settle, args=(settled, work), name="answer", daemon=True).start()
    before = moved()
    while True:
        try:
            return settled.result(seconds)
        except TimeoutError:
            if settled.done():  # the work's own
                raise
        if (now := moved()) == before:
            raise _stalled("nothing of use", seconds)
        before = now


def _stalled(brought: str, seconds: float) -> WeightsError:
    return WeightsError(f"the server sent {brought} in {seconds:.0f} s: try another network, what is here is kept")


def _settle(settled: "Future[T]", work: Callable[[], T]) -> None:
    try:
        settled.set_result(work())
    except BaseException as error:
        settled.set_exception(error)


def _trickles(brought: int, seconds: float) -> bool:
    """Whether the download is slower than SLOWEST_RATE."""
    return seconds > PACE_WINDOW and brought < SLOWEST_RATE * seconds


def plain_bytes(answer: Any) -> Iterator[bytes]:
    """The body's chunks; NotTheHub for a compressed body, which could expand to any size."""
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise NotTheHub("a compressed answer that was not asked for")
    yield from answer.iter_raw()


def require_pace(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks; WeightsError if they arrive slower than SLOWEST_RATE."""
    began, brought = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        brought += len(chunk)
        if time.monotonic() - began > PACE_WINDOW:
            if _trickles(brought, time.monotonic() - began):
                raise _stalled(f"{brought:,} bytes", PACE_WINDOW)
            began, brought = time.monotonic(), 0


def read_limited(answer: Any, most: int) -> bytes:
    """The whole body; NotTheHub if it exceeds `most` bytes or LONGEST_ANSWER seconds."""
    end, content = time.monotonic() + LONGEST_ANSWER, bytearray()
    for chunk in plain_bytes(answer):
        content += chunk
        if len(content) > most or time.monotonic() > end:
            raise NotTheHub("an answer that does not end")
    return bytes(content)


def find_hub() -> Hub:
    """The Hub that the environment sets."""
    return Hub((os.environ.get("HF_ENDPOINT") or HOME).rstrip("/"))


def is_offline() -> bool:
    """Whether the environment forbids network access at this moment."""
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFFLINE)


OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def go_offline() -> None:
    """Forbid network access for the libraries too, even if they have already read the environment."""
    from huggingface_hub import constants

    os.environ.update(dict.fromkeys(OFFLINE, "1"))
    constants.HF_HUB_OFFLINE = True


def _sleep(seconds: float, awake: Callable[[], None]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        awake()
        time.sleep(min(left, NAP))


def _start(part: Path, size: int) -> int:
    """The position to resume at. A part that is too long, or not a regular file, is deleted."""
    start = _held(part)
    if start > size or (path_or_link_exists(part) and not is_regular(part)):
        part.unlink()
        return 0
    return start


def _held(part: Path) -> int:
    return part.stat().st_size if is_regular(part) else 0


def _goes_on(headers: Any, start: int) -> bool:
    return str(headers.get("Content-Range", "")).startswith(f"bytes {start}-")


def _write(part: Path, start: int, chunks: Iterator[bytes], remote: Remote, on_bytes: OnBytes) -> None:
    """Write from `start`, never past the size, without truncating: another process may be writing too."""
    place = start
    with _opened(part) as file:
        file.seek(start)
        for chunk in chunks:
            place += len(chunk)
            if place > remote.size:
                break
            _write_all(file, part, chunk)
            on_bytes(place)
    if place > remote.size:
        part.unlink(missing_ok=True)
    if place != remote.size:
        raise RetryLater(f"{remote.path} came with {place} bytes and not {remote.size}")


def _write_all(file: RawIOBase, part: Path, chunk: bytes) -> None:
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) or 0 :]
    except OSError as error:
        raise cache_write_error(part, error) from error


@contextmanager
def _opened(part: Path) -> Iterator[RawIOBase]:
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        handle = open_own_file(part, os.O_RDWR | os.O_CREAT, 0o644, anyone=True)  # a cache may be shared
    except OSError as error:
        raise cache_write_error(part, error) from error
    with os.fdopen(handle, "r+b", buffering=0) as file:
        yield file


def retry_after(headers: Any) -> float | None:
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None
