"""Turn errors into one line on stderr and an exit code."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import typer
from typer.core import TyperGroup

from srcli.batch.settings import STDIO
from srcli.cli.config import find_settings_file
from srcli.errors import MachineError, SrcliError, unwritable_file
from srcli.imaging.printable import printable
from srcli.messages import name_flags

USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
PYDANTIC_PREFIX = "Value error, "  # pydantic's, which says nothing to a user


class ErrorBoundary(TyperGroup):
    """A command group that prints user errors as one line (`srcli: what: what to do`). Bugs keep their traceback."""

    def make_context(self, info_name: str | None, args: list[str], *words: Any, **extra: Any) -> Any:
        self._as_json = _wants_json(args)
        with _catch_errors(self._as_json):
            return super().make_context(info_name, args, *words, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _catch_errors(self._as_json):
            _check_current_folder()
            return super().invoke(ctx)


def _check_current_folder() -> None:
    """Refuse a current folder that was deleted: PyTorch's libraries end the process there, with another reason."""
    try:
        Path.cwd()
    except OSError as error:
        raise MachineError(f"the current folder cannot be used ({error.strerror}): change to another one") from error


def _wants_json(args: list[str]) -> bool:
    """Whether stdout is for JSON; not if the result itself goes there."""
    pairs = set(pairwise(args))
    return "--json" in args and not pairs & {("-o", STDIO), ("--output", STDIO)}


@contextmanager
def _catch_errors(as_json: bool) -> Iterator[None]:
    try:
        yield
    except SrcliError as error:
        raise _report_failure(str(error), error.exit_code, as_json) from error
    except typer.TyperException as error:
        raise _report_usage(error, as_json) from error
    except KeyboardInterrupt as error:
        raise _report_failure("interrupted", INTERRUPTED, as_json) from error
    except BrokenPipeError as error:
        silence_stream(sys.stdout)
        raise typer.Exit(BROKEN_PIPE) from error
    except OSError as error:
        if error.filename is not None or error.errno not in DISK_ERRORS:
            raise
        silence_stream(sys.stdout)
        raise _report_failure(str(_unwritable_output(error)), MachineError.exit_code, as_json=False) from error


def _report_failure(message: str, code: int, as_json: bool) -> Exception:
    """Print the error that ends the program: a line on stderr, and with --json an object on stdout."""
    print_error(message)
    if as_json:
        event = {"event": "error", "message": printable(name_flags(message)), "exit": code}
        write_line(json.dumps(event).encode())
    return typer.Exit(code)


def _report_usage(error: typer.TyperException, as_json: bool) -> Exception:
    """Print a usage error as one line; a command group without a command still shows its help."""
    ctx = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" or ctx is None:
        return error
    message = " ".join(error.format_message().split()).rstrip(".").replace(PYDANTIC_PREFIX, "")
    return _report_failure(
        f"{_name_settings_file(error, ctx)}{message[:1].lower()}{message[1:]}: see {ctx.command_path} --help",
        USAGE,
        as_json,
    )


def _name_settings_file(error: typer.TyperException, ctx: typer.Context) -> str:
    """The settings file of a wrong value; empty if it is from the command line or a variable."""
    name = getattr(getattr(error, "param", None), "name", None)
    if name is None or getattr(ctx.get_parameter_source(name), "name", "") != "DEFAULT_MAP":
        return ""
    return f"{find_settings_file(ctx.params.get('config'))}: "


def print_error(message: str) -> None:
    """Print an error as one line on stderr, with unprintable characters escaped."""
    print_message(f"srcli: {printable(name_flags(message))}")


def print_message(text: str) -> None:
    """Print lines on stderr, with unprintable characters escaped; a closed stderr is not an error."""
    try:
        print("\n".join(map(printable, text.rstrip().split("\n"))), file=sys.stderr, flush=True)
    except OSError:
        silence_stream(sys.stderr)


def write_line(line: bytes, end: bytes = b"\n") -> None:
    """Write one line of results to stdout as bytes, since a path may not be valid in any encoding."""
    try:
        sys.stdout.buffer.write(line + end)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence_stream(sys.stdout)
        raise unwritable_file("standard output", error, "redirect it elsewhere") from error


def silence_stream(stream: TextIO) -> None:
    """Redirect a broken stream to the null device, so that the flush at exit does not fail and print an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def open_streams() -> None:
    """Open the null device for closed standard streams, whose descriptors the next opened file would get."""
    if sys.stdin is None:  # and stays None, which says that it is closed
        os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "w", errors="backslashreplace")  # noqa: PTH123, SIM115  # open until the end
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def is_stdout_closed() -> bool:
    """Whether stdout was closed when the program started: what is written to it is lost."""
    return getattr(sys.stdout, "name", None) == os.devnull


def is_on_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def flush_stdout() -> None:
    """Write what is buffered for stdout, which the interpreter would do at exit, and print a traceback if it fails."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stream(sys.stdout)
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        print_error(str(_unwritable_output(error)))
        silence_stream(sys.stdout)
        sys.exit(MachineError.exit_code)


def _unwritable_output(error: OSError) -> MachineError:
    return unwritable_file("the output", error, "make room on its disk, or choose another")
