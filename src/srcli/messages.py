"""Messages for the user: the package speaks through `logging`, and whoever runs it decides where that is heard."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

owns_stderr = False  # whether srcli is the program, and may silence libraries that write to stderr by themselves

FLAGS = {"base": "--base-model", "loras": "--lora", "lora_alpha": "--no-lora-alpha"}
Tell = Callable[[str], None]  # takes a message for the user
PARAMETER = re.compile(r"`([a-z][a-z_]*)`")

ROOT = logging.getLogger("srcli")


class _Forward(logging.Handler):
    """Hands the text of each message to a function."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__()
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        self._hear(record.getMessage())


def forward_messages(hear: Callable[[str], None] | None) -> None:
    """Send all messages of this process to `hear`, and to no earlier one. None: to nobody but the application's own
    handlers, as at the start."""
    for handler in [handler for handler in ROOT.handlers if isinstance(handler, _Forward)]:
        ROOT.removeHandler(handler)
    if hear is not None:
        ROOT.addHandler(_Forward(hear))
        ROOT.setLevel(logging.INFO)


def name_flags(text: str) -> str:
    """A message for the command line: parameters, which stand in backticks, by the names of their flags."""
    return PARAMETER.sub(lambda found: FLAGS.get(found[1], "--" + found[1].replace("_", "-")), text)
