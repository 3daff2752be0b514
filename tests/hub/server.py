"""The Hub's API as far as pulling needs it, over a folder of repositories, with faults on demand.

Spoken: model info with LFS metadata, `resolve` with ETag, X-Repo-Commit and X-Linked-* headers, a redirect of
large files to a second origin (the CDN), range requests; and `/raw/owner/name/COMMIT/PATH`, as git
hosts give files. A commit is named by its content, and stays reachable after the folder has changed, as a commit does.
"""

import gzip
import hashlib
import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LFS = (".safetensors", ".bin", ".ckpt", ".pt")
WHOLE = ("status", "gated", "html", "leave", "body", "packed", "endless", "drip", "drip-body")  # instead of an answer
KINDS = (*WHOLE, "cut", "wrong", "slow", "whole")
PAGE = b"<!doctype html><title>Sign in to the guest network</title>"
TOKEN = "Bearer hf_"


@dataclass
class Fault:
    """One thing that goes wrong, on the next `times` requests whose path matches.

    status: answer `value`. gated: the 403 of a gated repository. cut: break off after `value` bytes. wrong: other
    bytes of the same size. html: a login page. slow: `value` seconds before each piece. whole: ignore the range.
    leave: answer nothing at all. body: answer `content`. packed: answer zeros compressed, unasked.
    endless: answer with status `value` and a body that does not end. drip: send the header byte by byte, for ever;
    drip-body: a chunk's length.
    """

    kind: str
    path: str = "*"
    value: float = 0
    times: int = 1_000_000
    skip: int = 0  # so many requests go well first
    content: bytes = b""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault {self.kind!r}: choose one of {', '.join(KINDS)}")


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    origin: str


@dataclass
class Hub:
    """The server: `url` is its HF_ENDPOINT. Repositories are FOLDER/owner/name."""

    folder: Path
    port: int = 0
    token: str | None = None  # if set, repositories named in `private` want it
    private: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    closed: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Hub":
        self.servers = [self._serve("hub", self.port), self._serve("cdn", 0)]
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Go away, for good."""
        self.closed.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def _serve(self, origin: str, port: int) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "origin": origin})
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].server_port}"

    @property
    def cdn(self) -> str:
        return f"http://127.0.0.1:{self.servers[1].server_port}"

    def head(self, repo: str) -> str | None:
        """The commit that the main branch is at: the folder as it is now."""
        root = self.folder / repo
        if not root.is_dir():
            return None
        files = {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
        digest = hashlib.sha1(usedforsecurity=False)
        for path, content in files.items():
            digest.update(f"{path}\0{git_blob(content)}\n".encode())
        self.commits.setdefault(repo, {}).setdefault(digest.hexdigest(), files)
        return digest.hexdigest()

    def fault(self, path: str, *kinds: str) -> Fault | None:
        """The next fault for this path, used up by one."""
        for fault in self.faults:
            if fault.times > 0 and fault.kind in kinds and fnmatchcase(path, fault.path):
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    origin: str
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Tests read `Hub.asked`."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.body = body
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(Asked(self.command, path, dict(self.headers.items()), self.origin))
        if self._failed(path):
            return
        if path.startswith("/api/models/"):
            self._info(path.removeprefix("/api/models/"))
        elif path.startswith("/raw/"):
            _, _, owner, name, revision, file = path.split("/", 5)
            self._raw(f"{owner}/{name}", revision, file)
        elif "/resolve/" in path:
            repo, _, rest = path.lstrip("/").partition("/resolve/")
            self._resolve(repo, *rest.split("/", 1))
        elif path.startswith("/cdn/"):
            _, _, owner, name, commit, file = path.split("/", 5)
            self._content(f"{owner}/{name}", commit, file)
        else:
            self._error(404, "RepoNotFound")

    def _failed(self, path: str) -> bool:
        fault = self.hub.fault(path, *WHOLE)
        if fault is None:
            return False
        if fault.kind == "status":
            retry = {"Retry-After": "0"} if fault.value == 429 else {}
            self._send(int(fault.value), b"no", retry)
        elif fault.kind == "gated":
            self._error(403, "GatedRepo")
        elif fault.kind == "html":
            self._send(200, PAGE, {"Content-Type": "text/html; charset=utf-8"})
        elif fault.kind == "body":
            self._send(200, fault.content, {"Content-Type": "application/json"})
        elif fault.kind == "packed":
            self._send(200, gzip.compress(bytes(64 << 20)), {"Content-Encoding": "gzip"})
        elif fault.kind == "endless":
            self._go_on(int(fault.value))
        elif fault.kind.startswith("drip"):
            self._drip(header=fault.kind == "drip")
        else:
            self.close_connection = True
        return True

    def _drip(self, header: bool) -> None:
        """Something with each moment, and never anything whole."""
        self.send_response(200)
        if not header:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
        self.flush_headers()
        self.close_connection = True
        with suppress(OSError):
            self.wfile.write(b"X-A: " if header else b"1;")
            while not self.hub.closed.wait(0.02):
                self.wfile.write(b"a")

    def _go_on(self, status: int) -> None:
        """Answer until the other side has enough of it."""
        self.send_response(status)
        self.end_headers()
        self.close_connection = True
        try:
            while self.body:
                self.wfile.write(b" " * 65536)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _info(self, rest: str) -> None:
        repo, _, revision = rest.partition("/revision/")
        found = self._commit(repo, revision or "main")
        if found is None:
            return
        commit, files = found
        card = {"license": "openrail"} if repo.endswith("-with-card") else {}
        info = {
            "id": repo,
            "sha": commit,
            "cardData": card,
            "siblings": [_sibling(path, content) for path, content in files.items()],
        }
        self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json", "X-Repo-Commit": commit})

    def _commit(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        head = self.hub.head(repo)
        if head is None or (
            repo in self.hub.private and self.headers.get("Authorization") != f"Bearer {self.hub.token}"
        ):
            self._error(401, "RepoNotFound")
            return None
        commit = head if revision == "main" else revision
        if commit not in self.hub.commits[repo]:
            self._error(404, "RevisionNotFound")
            return None
        return commit, self.hub.commits[repo][commit]

    def _resolve(self, repo: str, revision: str, file: str) -> None:
        found = self._commit(repo, revision)
        if found is None:
            return
        commit, files = found
        if file not in files:
            self._error(404, "EntryNotFound", {"X-Repo-Commit": commit})
        elif file.endswith(LFS):
            content = files[file]
            linked = {"X-Linked-ETag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
            to = {"Location": f"{self.hub.cdn}/cdn/{repo}/{commit}/{file}?signature=secret"}
            self._send(302, b"", {"X-Repo-Commit": commit} | linked | to)
        else:
            self._content(repo, commit, file)

    def _raw(self, repo: str, revision: str, file: str) -> None:
        """A file as a git host serves it: by commit and path, and nothing is said of it."""
        self.hub.head(repo)
        if file not in self.hub.commits.get(repo, {}).get(revision, {}):
            return self._send(404, b"404: Not Found", {})
        return self._content(repo, revision, file)

    def _content(self, repo: str, commit: str, file: str) -> None:
        content = self.hub.commits[repo][commit][file]
        etag = sha256(content) if file.endswith(LFS) else git_blob(content)
        if self.hub.fault(file, "wrong"):
            content = bytes(byte ^ 0xFF for byte in content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        start = self._start()
        if start and not self.hub.fault(file, "whole"):
            if start >= len(content):
                return self._send(416, b"", headers)
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self._send(206, content[start:], headers, file)
        return self._send(200, content, headers, file)

    def _start(self) -> int:
        given = self.headers.get("Range", "")
        return int(given.removeprefix("bytes=").rstrip("-")) if given else 0

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"", {"X-Error-Code": code} | (headers or {}))

    def _send(self, status: int, content: bytes, headers: dict[str, str], file: str | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not self.body:
            return
        cut = self.hub.fault(file, "cut") if file else None
        slow = self.hub.fault(file, "slow") if file else None
        if cut:
            content = content[: int(cut.value)]
            self.close_connection = True
        try:
            self._pieces(content, slow.value if slow else 0)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _pieces(self, content: bytes, pause: float) -> None:
        step = max(1, len(content) // 8) if pause else max(1, len(content))
        for start in range(0, len(content), step):
            time.sleep(pause)
            self.wfile.write(content[start : start + step])
            self.wfile.flush()


def _sibling(path: str, content: bytes) -> dict[str, object]:
    facts: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": git_blob(content)}
    if path.endswith(LFS):
        facts["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
    return facts


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
