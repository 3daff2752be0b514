"""Failures that a user can act on. Each says what, then what to do, and carries its exit code."""


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


class WeightsError(SrcliError):
    """Weights are missing, refused, incompatible, unreachable, or not what weights.lock says."""

    exit_code = 4


class MachineError(SrcliError):
    """The device, the memory, the disk or the output folder."""

    exit_code = 5


class TooLarge(MachineError):
    """One picture does not fit into memory; a smaller one may."""
