"""What one row of the table of formats says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import IO

from srcli.errors import PictureError
from srcli.imaging.decode import Decoded, ReadOptions
from srcli.imaging.pillow_reader import measure_with_pillow, read_with_pillow
from srcli.imaging.prepare_output import PreparedOutput

UNBOUNDED = 2**31 - 1

Reader = Callable[[IO[bytes], "Format", ReadOptions], Decoded]
Counter = Callable[[IO[bytes], "Format"], int]  # of pages or frames
Measurer = Callable[[IO[bytes], "Format", int | None], tuple[int, int]]  # of the upright picture, from headers alone
Writer = Callable[[PreparedOutput, IO[bytes], int | None], None]  # from 1 to 100; None: without loss


@dataclass(frozen=True, slots=True)
class Format:
    """A format of files. What is left out is so in most formats."""

    name: str  # Pillow's word, where it has one
    suffixes: tuple[str, ...]  # the first is that of new files
    magic: bytes  # a regular expression for how files begin
    _: KW_ONLY
    read: Reader = read_with_pillow
    measure: Measurer = measure_with_pillow
    count: Counter | None = None  # None: a file is one picture
    write: Writer | None = None  # None: it is only read
    other_suffixes: tuple[str, ...] = ()  # that files have, and results never get
    instead: str = ""  # the suffix of results of such pictures, if they are not written as they came
    extra: str = ""  # of `pip install`, without which it is not read
    longest: int = UNBOUNDED  # pixels of a side
    largest: int = 2**62  # bytes of all pixels
    quality: int | None = None  # from 1 to 100, where loss is chosen; None: it knows no loss
    lossless: bytes | bool = False  # pixels were stored exactly: always, never, or where these bytes are in the head
    alpha: bool = False
    deep: bool = False  # it is written with 16 bits a channel
    cmyk: bool = False
    metadata: bool = True  # it holds a colour profile and metadata
    upright: bool = False  # its decoder turns the picture by itself
    chatty: bool = False  # its decoder writes to stderr
    bits: Callable[[bytes], int] = lambda head: 8  # of a channel, where Pillow would read only 8
    read_deep: Reader | None = None  # reads what Pillow has no form for, and more than 8 bits; pixels only
    explain: Callable[[bytes], PictureError | None] = lambda data: None  # why Pillow cannot open it
