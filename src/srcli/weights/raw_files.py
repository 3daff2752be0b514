"""Download raw files of a git repository at an https address, like the Hub's but without its token."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from srcli.errors import WeightsError
from srcli.weights.hub import BUSY, LONGEST_ANSWER, Hub, RetryLater, retry_after, within
from srcli.weights.listing import Commit, NotTheHub, Remote
from srcli.weights.lock import LARGEST_SIZE, File


@dataclass(frozen=True)
class RawFiles(Hub):
    """The server of one repository; `endpoint` is the address in the lock. It has no listing of a commit's files."""

    def listed(self, name: str, revision: str, files: Mapping[str, File]) -> Commit:
        """The commit as the lock describes it. Sizes that the lock lacks come from the server."""
        remotes = {}
        for path, file in files.items():
            ask = partial(within, LONGEST_ANSWER, partial(self._size, name, revision, path))
            size = self._retry(name, ask) if file.size is None else file.size
            remotes[path] = Remote(path, size, file.blob or "", file.sha256)
        return Commit(name, revision, remotes)

    def _size(self, name: str, revision: str, path: str) -> int:
        from huggingface_hub import constants

        url = self._url(name, revision, path)
        with (
            self._translated(name),
            self._answer(url, {}, constants.HF_HUB_ETAG_TIMEOUT, "HEAD") as answer,
        ):
            self._check_status(answer, name, revision, path)
            size = int(answer.headers.get("Content-Length", ""))
            if not 0 <= size <= LARGEST_SIZE:
                raise NotTheHub("no size of a file")
            return size

    def _url(self, repo: str, revision: str, path: str) -> str:
        return f"{self.endpoint}/{revision}/{quote(path)}"

    def _headers(self) -> dict[str, str]:
        return {}

    def _not_understood(self) -> WeightsError:
        return WeightsError(f"{self.endpoint} does not give the file (a login page?): check the network and the proxy")

    def _check_status(self, answer: Any, repo: str, revision: str, path: str | None = None) -> None:
        code = answer.status_code
        if code in (200, 206):
            return
        if code in BUSY:
            raise RetryLater(f"the server answers {code}", retry_after(answer.headers))
        if code == 404:
            raise WeightsError(f"{self.endpoint} has no {path} at {revision[:8]}: check the lock")
        raise WeightsError(f"{self.endpoint}: the server answers {code}: try again later")
