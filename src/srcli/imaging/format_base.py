"""The record type of the format table."""

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
    """A file format. Defaults are what holds for most formats."""

    name: str  # Pillow's name where it has one
    suffixes: tuple[str, ...]  # the first one is used for new files
    magic: bytes  # regular expression for the first bytes
    _: KW_ONLY
    read: Reader = read_with_pillow
    measure: Measurer = measure_with_pillow
    count: Counter | None = None  # None: one picture a file
    write: Writer | None = None  # None: read only
    other_suffixes: tuple[str, ...] = ()  # accepted for inputs, never used for results
    instead: str = ""  # suffix of results if the format itself is not written
    extra: str = ""  # name of the extra of `pip install` that reads it
    longest: int = UNBOUNDED  # largest side in pixels
    largest: int = 2**62  # largest size of all pixels in bytes
    quality: int | None = None  # default of lossy formats, 1 to 100; None: lossless only
    lossless: bytes | bool = False  # whether files are lossless: always, never, or if these bytes are in the first ones
    alpha: bool = False
    deep: bool = False  # can be written with 16 bits a channel
    cmyk: bool = False
    metadata: bool = True  # can hold a colour profile and metadata
    upright: bool = False  # its decoder applies the orientation
    chatty: bool = False  # its decoder writes to stderr
    bits: Callable[[bytes], int] = lambda head: 8  # bits a channel, from the first bytes, where Pillow reads only 8
    read_deep: Reader | None = None  # reads the pixels of what Pillow does not support
    explain: Callable[[bytes], PictureError | None] = lambda data: None  # explains a file that Pillow cannot open
