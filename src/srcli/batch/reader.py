"""Reading pictures in a process of their own, which a bad file may kill, stall or fill without harm to the run."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO, cast

import srcli
from srcli.batch.orders import STREAM, Intake
from srcli.batch.wire import Refusal, Request, receive, send
from srcli.errors import MachineError, PictureError
from srcli.imaging.names import shown
from srcli.imaging.picture import Picture

PATIENCE = 120.0  # seconds for reading one picture, where no --timeout says otherwise


class Reader:
    """One reading process, started when it is needed and again when it died. Safe to use from one thread at a time."""

    def __init__(self, intake: Intake, timeout: float | None = None) -> None:
        self._intake, self._timeout = intake, min(timeout or PATIENCE, PATIENCE)
        self._process: subprocess.Popen[bytes] | None = None
        self._late = self._greeted = False

    def read(self, path: Path) -> Picture:
        """The picture in a file, or on stdin."""
        data = sys.stdin.buffer.read() if path == Path(STREAM) else None
        return cast(Picture, self._ask(Request(path, data, self._intake, "picture")))

    def size(self, path: Path) -> tuple[int, int]:
        """Width and height, from the file's header."""
        return cast(tuple[int, int], self._ask(Request(path, None, self._intake, "size")))

    def made(self, path: Path) -> dict[str, Any] | None:
        """How we made this file, if we did."""
        return cast("dict[str, Any] | None", self._ask(Request(path, None, self._intake, "made")))

    def start(self) -> subprocess.Popen[bytes]:
        """Starting takes a moment, so a run does it before it looks for pictures."""
        if self._process is None:
            try:
                self._process = _spawn()
            except OSError as error:
                raise MachineError(f"no reading process can be started ({error.strerror}): end some others") from error
            self._greeted = False
        return self._process

    def _greet(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until it can read: what goes wrong before that is no picture's fault."""
        if self._greeted:
            return
        try:
            receive(cast(BinaryIO, process.stdout))
        except (EOFError, OSError) as error:
            self.close()
            raise MachineError("the reading process does not start: install srcli again") from error
        self._greeted = True

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._process.wait()
            self._process = None

    def _ask(self, request: Request) -> object:
        process = self.start()
        self._greet(process)
        timer = threading.Timer(self._timeout, self._expire)
        self._late = False
        timer.start()
        try:
            send(cast(BinaryIO, process.stdin), request)
            answer = receive(cast(BinaryIO, process.stdout))
        except (EOFError, OSError, MemoryError, pickle.UnpicklingError) as error:
            raise self._death(request.path) from error
        finally:
            timer.cancel()
        if isinstance(answer, Refusal):
            raise PictureError(answer.message, answer.kind)
        return answer

    def _expire(self) -> None:
        self._late = True
        if self._process is not None:
            self._process.kill()

    def _death(self, path: Path) -> PictureError:
        late, process = self._late, self._process
        self.close()
        code = process.returncode if process is not None else 0
        if late:
            text = f"{shown(path)} could not be read within {self._timeout:g} seconds: raise --timeout, or leave it out"
            return PictureError(text, "timeout")
        text = f"{shown(path)} killed the process that read it (status {code}): it is damaged or hostile, leave it out"
        return PictureError(text, "crash")


def _spawn() -> subprocess.Popen[bytes]:
    # -P: or else modules would come from the folder that the user happens to be in.
    command = [sys.executable, "-P", "-m", "srcli.batch.child"]
    home = os.pathsep.join(filter(None, [str(Path(srcli.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": home}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


class Readers:
    """As many readers as are busy at once."""

    def __init__(self, intake: Intake, timeout: float | None = None) -> None:
        self._intake, self._timeout = intake, timeout
        self._free: SimpleQueue[Reader] = SimpleQueue()
        self._all: list[Reader] = []

    def start(self) -> None:
        """Have one ready for the first picture."""
        with self._one() as reader:
            reader.start()

    def close(self) -> None:
        for reader in self._all:
            reader.close()

    def read(self, path: Path) -> Picture:
        with self._one() as reader:
            return reader.read(path)

    def size(self, path: Path) -> tuple[int, int]:
        with self._one() as reader:
            return reader.size(path)

    def made(self, path: Path) -> dict[str, Any] | None:
        with self._one() as reader:
            return reader.made(path)

    @contextlib.contextmanager
    def _one(self) -> Iterator[Reader]:
        try:
            reader = self._free.get_nowait()
        except Empty:
            reader = Reader(self._intake, self._timeout)
            self._all.append(reader)
        try:
            yield reader
        finally:
            self._free.put(reader)
