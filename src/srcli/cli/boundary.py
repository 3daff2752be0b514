"""Turn errors into one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import typer
from typer.core import TyperGroup

from srcli.errors import MachineError, SrcliError
from srcli.imaging.printable import printable
from srcli.messages import name_flags

USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


class ErrorBoundary(TyperGroup):
    """A command group that prints user errors as one line (`srcli: what: what to do`). Bugs keep their traceback."""

    def make_context(self, *words: Any, **extra: Any) -> Any:
        with _boundary():
            return super().make_context(*words, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _boundary():
            return super().invoke(ctx)


@contextmanager
def _boundary() -> Iterator[None]:
    try:
        yield
    except SrcliError as error:
        print_error(str(error))
        raise typer.Exit(error.exit_code) from error
    except typer.TyperException as error:
        raise _usage(error) from error
    except KeyboardInterrupt as error:
        print_error("interrupted")
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        silence_stream(sys.stdout)
        raise typer.Exit(BROKEN_PIPE) from error


def _usage(error: typer.TyperException) -> Exception:
    """Print a usage error as one line; a command group without a command still shows its help."""
    ctx = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" or ctx is None:
        return error
    message = " ".join(error.format_message().split()).rstrip(".")
    print_error(f"{message[:1].lower()}{message[1:]}: see {ctx.command_path} --help")
    return typer.Exit(USAGE)


def print_error(message: str) -> None:
    """Print an error as one line on stderr, with unprintable characters escaped."""
    print_message(f"srcli: {printable(name_flags(message))}")


def print_message(text: str) -> None:
    """Print a message on stderr; a closed stderr is not an error."""
    try:
        print(text, file=sys.stderr, flush=True)
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
        raise MachineError(f"standard output cannot be written ({error.strerror}): redirect it elsewhere") from error


def silence_stream(stream: TextIO) -> None:
    """Redirect a broken stream to the null device, so that the flush at exit does not fail and print an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def open_streams() -> None:
    """Reopen closed standard streams, whose descriptors the next opened file would get."""
    for name, mode in (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, mode)  # stdout read-only: writing results to it must fail
            os.set_inheritable(number, True)
            if name != "stdin":
                setattr(sys, name, os.fdopen(number, "w"))
