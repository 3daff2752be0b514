"""File names and numbers as text that is safe to show in terminals."""

from __future__ import annotations

import os
import unicodedata

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(name: str | bytes | os.PathLike[str]) -> str:
    """The name on one line, with control characters and invalid bytes escaped. Rich markup is not escaped."""
    try:
        text = os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate, possible in a list of names
        text = str(name)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(char) for char in text)


def prefix_name(name: str | os.PathLike[str], message: str) -> str:
    """The message with the printable name before it, unless it has the name already."""
    text = printable(name)
    return message if text in message else f"{text}: {message}"


def format_count(number: object, thing: str) -> str:
    """A number and a noun, in the singular or plural."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def format_bytes(size: int) -> str:
    """Format a number of bytes in decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}" if size < 100 * scale else f"{size / scale:.0f} {unit}"
    return f"{size} B"


def _visible(char: str) -> str:
    # Format characters, which can reorder or hide text ("gpj.exe" looks like "exe.jpg"), are not printable either.
    if char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    code = ord(char)
    return _ESCAPES.get(char) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )
