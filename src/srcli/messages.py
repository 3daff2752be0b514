"""Messages for the user go through `logging`; the application decides where they appear."""

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

    def __init__(self, receive: Callable[[str], None]) -> None:
        super().__init__()
        self._receive = receive

    def emit(self, record: logging.LogRecord) -> None:
        self._receive(record.getMessage())


def forward_messages(receive: Callable[[str], None] | None) -> None:
    """Send all messages of this process to `receive`, in place of an earlier function; None stops forwarding."""
    for handler in [handler for handler in ROOT.handlers if isinstance(handler, _Forward)]:
        ROOT.removeHandler(handler)
    if receive is not None:
        ROOT.addHandler(_Forward(receive))
        ROOT.setLevel(logging.INFO)


def name_flags(text: str) -> str:
    """A message for the command line: parameter names, which are in backticks, become flags."""
    return PARAMETER.sub(lambda found: FLAGS.get(found[1], "--" + found[1].replace("_", "-")), text)
