"""Failures that a user can act on. Each says what, then what to do, and carries its exit code."""

from __future__ import annotations

from collections.abc import Iterable


class SrcliError(Exception):
    """A failure with a remedy. Its text is one line: what happened, then what to do."""

    exit_code = 1


class PictureError(SrcliError):
    """One picture cannot be read, processed or written; the others can. `kind` is its class in reports."""

    def __init__(self, message: str, kind: str = "unreadable") -> None:
        super().__init__(message)
        self.kind = kind


class InputError(SrcliError):
    """The command line or a setting makes no sense."""

    exit_code = 2


def unknown_word(what: str, value: str, choices: Iterable[str]) -> InputError:
    """The error for a word that is none of the choices."""
    return InputError(f"{what} {value!r} is unknown: choose one of {', '.join(choices)}")


def check_range(what: str, value: float, low: float, high: float) -> None:
    """Raises InputError for a number outside of these bounds. NaN lies outside of any."""
    if not low <= value <= high:
        value, low, high = (f"{x:.12g}" if isinstance(x, float) else x for x in (value, low, high))  # type: ignore[assignment]
        raise InputError(f"{what} {value} is out of range: give a number from {low} to {high}")


class WeightsError(SrcliError):
    """Weights are missing, refused, incompatible, unreachable, or not what weights.lock says."""

    exit_code = 4


class MachineError(SrcliError):
    """The device, the memory, the disk or the output folder."""

    exit_code = 5


def unwritable_file(what: object, error: OSError, remedy: str) -> MachineError:
    """The error for a file that cannot be written."""
    return MachineError(f"{what} cannot be written ({error.strerror or error}): {remedy}")


class TooLarge(MachineError):
    """One picture does not fit into memory; a smaller one may."""
