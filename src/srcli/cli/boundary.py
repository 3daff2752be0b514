"""The one place where failures become a line on stderr and an exit code."""

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
    """A command group whose user errors are one line: `srcli: what: what to do`. Bugs keep their traceback."""

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
        complain(str(error))
        raise typer.Exit(error.exit_code) from error
    except typer.TyperException as error:
        raise _usage(error) from error
    except KeyboardInterrupt as error:
        complain("interrupted")
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        mute(sys.stdout)
        raise typer.Exit(BROKEN_PIPE) from error


def _usage(error: typer.TyperException) -> Exception:
    """A mistake in the command line, in one line too; a bare command group still shows its help."""
    ctx = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" or ctx is None:
        return error
    message = " ".join(error.format_message().split()).rstrip(".")
    complain(f"{message[:1].lower()}{message[1:]}: see {ctx.command_path} --help")
    return typer.Exit(USAGE)


def complain(message: str) -> None:
    """One line on stderr, whatever characters the message is made of."""
    say(f"srcli: {printable(name_flags(message))}")


def say(text: str) -> None:
    """Tell the user. That nobody can hear it is no reason to end the work."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        mute(sys.stderr)


def emit(line: bytes, end: bytes = b"\n") -> None:
    """One line of results, byte for byte: a path need not be text in any encoding."""
    try:
        sys.stdout.buffer.write(line + end)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        mute(sys.stdout)
        raise MachineError(f"standard output cannot be written ({error.strerror}): give it another place") from error


def mute(stream: TextIO) -> None:
    """Python flushes its streams again on its way out, which would fail again, and be told."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def open_streams() -> None:
    """Give closed streams back their numbers, which the next file to be opened would take."""
    for name, mode in (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, mode)  # of stdout no writing: results must not vanish unnoticed
            os.set_inheritable(number, True)
            if name != "stdin":
                setattr(sys, name, os.fdopen(number, "w"))
