"""Read pictures in separate processes, so that a bad file that crashes, hangs or fills memory does not harm the run."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO, cast

import srcli
from srcli.batch.planning.inputs import open_stdin
from srcli.batch.reading.protocol import ProtocolError, ReadRequest, Refusal, receive_message, send_message
from srcli.batch.settings import NO_SIDES, STDIO, InputOptions, SidePictures
from srcli.errors import MachineError, PictureError
from srcli.group_signals import block_group_signals
from srcli.imaging.picture import Picture
from srcli.imaging.printable import printable

READ_TIMEOUT = 120.0  # seconds for reading one picture, unless --timeout is shorter
STDIN_CHUNK = 1 << 20
STREAM_BYTES = 16  # bytes of stdin per pixel of --max-pixels


class _Killed(PictureError):
    """The reading process was killed from outside, not by the file."""


class PictureReader:
    """One reading process, started on demand and restarted when it died. Not thread-safe."""

    def __init__(self, options: InputOptions, timeout: float | None = None) -> None:
        self._input, self._timeout = options, min(timeout or READ_TIMEOUT, READ_TIMEOUT)
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = self._dropped = False

    def read(self, path: Path, data: bytes | None = None, sides: SidePictures = NO_SIDES, frame: int = 0) -> Picture:
        """Read the picture in a file, or in `data`, together with its side pictures."""
        return cast(Picture, self._send(ReadRequest(path, data, self._input, "picture", sides, frame)))

    def ask(self, path: Path, want: str) -> Any:
        """Read the "size", the number of "frames" or the "provenance" of a file."""
        return self._send(ReadRequest(path, None, self._input, want))

    def start(self) -> subprocess.Popen[bytes]:
        """Start the process if it is not running. Starting takes a moment, so a run does it early."""
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it died while idle, not because of a picture
        if self._process is None:
            try:
                self._process = _spawn_reader()
            except OSError as error:
                raise MachineError(
                    f"the reading process cannot be started ({error.strerror}): close other programs"
                ) from error
            self._is_ready = False
        if self._dropped:
            self._process.kill()
        return self._process

    def drop(self) -> None:
        """Abort the current read, from any thread; its caller gets CancelledError."""
        self._dropped = True
        if (process := self._process) is not None:
            process.kill()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the first message; a failure before it is a MachineError, not the picture's."""
        if self._is_ready:
            return
        try:
            receive_message(cast(BinaryIO, process.stdout))
        except (EOFError, OSError) as error:
            self.close()
            if self._dropped:
                raise CancelledError from error
            raise MachineError("the reading process does not start: install srcli again") from error
        self._is_ready = True

    def close(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._process.wait()
            self._process = None

    def _send(self, request: ReadRequest) -> object:
        """Send again after a SIGKILL, which comes from a system short of memory and not from a file."""
        try:
            return self._answer(request)
        except _Killed:
            return self._answer(request)

    def _answer(self, request: ReadRequest) -> object:
        process = self.start()
        self._wait_until_ready(process)
        late = threading.Event()
        timer = threading.Timer(self._timeout, _kill_late, (process, late))
        timer.start()
        try:
            send_message(cast(BinaryIO, process.stdin), request)
            answer = receive_message(cast(BinaryIO, process.stdout))
        except (EOFError, OSError, MemoryError, ProtocolError) as error:
            raise self._explain_death(request.path, late.is_set()) from error
        finally:
            timer.cancel()
            timer.join()
            if late.is_set():  # perhaps just after the answer: the next picture needs a new process
                self.close()
        if isinstance(answer, Refusal):
            raise PictureError(answer.message, answer.kind)
        return answer

    def _explain_death(self, path: Path, late: bool) -> Exception:
        process = self._process
        self.close()
        if self._dropped:
            return CancelledError()
        code = process.returncode if process is not None else 0
        if late:
            text = f"{printable(path)} could not be read within {self._timeout:g} seconds"
            text += ": raise --timeout, or leave it out"
            return PictureError(text, "timeout")
        if code == -9:
            text = f"{printable(path)}: the system killed the process that read it twice: free some memory"
            return _Killed(text, "killed")
        text = f"{printable(path)} crashed the process that read it (status {code}): damaged or malicious, leave it out"
        return PictureError(text, "crash")


def _kill_late(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _spawn_reader() -> subprocess.Popen[bytes]:
    # -P: do not import modules from the current folder.
    command = [sys.executable, "-P", "-m", "srcli.batch.reading.child"]
    home = os.pathsep.join(filter(None, [str(Path(srcli.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": home}
    with block_group_signals():
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


class Stdin:
    """A picture on stdin, read in a daemon thread, since waiting for a silent pipe cannot be interrupted."""

    def __init__(self, most: int, timeout: float | None = None) -> None:
        self._most, self._timeout = most, timeout
        self._data: Future[bytes] = Future()

    def read(self) -> bytes:
        stream = open_stdin()
        # Unbuffered: a buffer's lock held by the daemon thread would crash the interpreter at exit.
        threading.Thread(target=self._fill, args=(getattr(stream, "raw", stream),), daemon=True).start()
        try:
            return self._data.result(self._timeout)
        except TimeoutError as error:
            text = f"standard input did not end within {self._timeout:g} seconds: raise --timeout"
            raise PictureError(text, "timeout") from error

    def drop(self) -> None:
        self._data.cancel()

    def _fill(self, stream: BinaryIO) -> None:
        data = bytearray()
        with contextlib.suppress(InvalidStateError):  # cancelled
            try:
                while chunk := stream.read(STDIN_CHUNK):
                    data += chunk
                    if len(data) > self._most:
                        raise PictureError(
                            "stdin holds more bytes than the largest allowed picture: raise --max-pixels", "too-large"
                        )
                self._data.set_result(bytes(data))
            except (OSError, MemoryError, PictureError) as error:
                self._data.set_exception(error)


class ReaderPool:
    """Reading processes, as many as are busy at once."""

    def __init__(self, options: InputOptions, timeout: float | None = None) -> None:
        self._input, self._timeout = options, timeout
        self._free: SimpleQueue[PictureReader] = SimpleQueue()
        self._all: list[PictureReader] = []
        self._stdin = Stdin(STREAM_BYTES * options.max_pixels, timeout)
        self._dropped = False

    def start(self) -> None:
        """Start a process for the first picture."""
        with self._borrow() as reader:
            reader.start()

    def close(self) -> None:
        for reader in self._all:
            reader.close()

    def drop(self) -> None:
        self._dropped = True
        self._stdin.drop()
        for reader in self._all:
            reader.drop()

    def read(self, path: Path, sides: SidePictures = NO_SIDES, frame: int = 0) -> Picture:
        data = self._stdin.read() if path == Path(STDIO) else None
        with self._borrow() as reader:
            return reader.read(path, data, sides, frame)

    def size(self, path: Path) -> tuple[int, int]:
        """Width and height, from the file's header."""
        with self._borrow() as reader:
            return cast(tuple[int, int], reader.ask(path, "size"))

    def count_frames(self, path: Path) -> int:
        """Pages or frames of a file; 1 if it cannot be read, since reading it will give the reason."""
        with self._borrow() as reader, contextlib.suppress(PictureError):
            return cast(int, reader.ask(path, "frames"))
        return 1

    def provenance(self, path: Path) -> dict[str, Any] | None:
        """The provenance that srcli wrote into this file; None also for files that crash the reader."""
        with self._borrow() as reader, contextlib.suppress(PictureError):
            return cast("dict[str, Any] | None", reader.ask(path, "provenance"))
        return None

    @contextlib.contextmanager
    def _borrow(self) -> Iterator[PictureReader]:
        try:
            reader = self._free.get_nowait()
        except Empty:
            reader = PictureReader(self._input, self._timeout)
            self._all.append(reader)
        try:
            if self._dropped:
                raise CancelledError
            yield reader
        finally:
            self._free.put(reader)
