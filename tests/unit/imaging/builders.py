"""Odd files, made by hand: what programs write that Pillow does not, and what nobody should have written."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image, ImageCms


def saved(array: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    """By Pillow."""
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def ramp(height: int, width: int, dtype=np.uint8, channels: int = 3) -> np.ndarray:
    """Colours that change everywhere and stay within the middle of the range."""
    top = np.iinfo(dtype).max
    y, x = np.mgrid[:height, :width]
    planes = [x / width, y / height, (x + y) / (width + height), 1 - x / width][:channels]
    return np.stack([(0.25 + 0.5 * p) * top for p in planes], -1).round().astype(dtype)


def noise(height: int, width: int, dtype=np.uint8, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(7)
    shape = (height, width, channels) if channels > 1 else (height, width)
    return rng.integers(0, int(np.iinfo(dtype).max) + 1, shape, dtype=dtype)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png(array: np.ndarray, *extra: bytes, interlaced: bool = False) -> bytes:
    """A PNG of 8 or 16 bits with chunks of one's own before the pixels."""
    height, width = array.shape[:2]
    channels = 1 if array.ndim == 2 else array.shape[2]
    deep = array.astype(array.dtype.newbyteorder(">"))
    passes = [deep[t::dy, x::dx] for t, x, dy, dx in ADAM7] if interlaced else [deep]
    raw = b"".join(b"\x00" + line.tobytes() for part in passes if part.size for line in part)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">LLBBBBB", width, height, array.dtype.itemsize * 8, kind, 0, 0, int(interlaced))
    chunks = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(
    array: np.ndarray,
    *,
    order: str = "<",
    deflate: bool = False,
    planar: bool = False,
    photometric: int | None = None,
    bits: int | None = None,
    sample_format: int = 1,
    extra_samples: int = 2,
    more: dict[int, tuple[int, int, bytes]] | None = None,
    pages: int = 1,
    subfile: int = 0,
) -> bytes:
    """A TIFF of any number kind, in one strip (one a channel if planar), with fields of one's own."""
    height, width = array.shape[:2]
    channels = 1 if array.ndim == 2 else array.shape[2]
    stored = array.astype(array.dtype.newbyteorder(order))
    planes = [stored[..., c] for c in range(channels)] if planar else [stored]
    strips = [zlib.compress(p.tobytes()) if deflate else p.tobytes() for p in planes]
    out = bytearray((b"II*\x00" if order == "<" else b"MM\x00*") + bytes(4))
    starts = []
    for strip in strips:
        starts.append(len(out))
        out += strip + bytes(len(strip) % 2)

    def numbers(kind: int, *values: int) -> tuple[int, int, bytes]:
        return kind, len(values), struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'L'}", *values)

    fields = {
        256: numbers(4, width),
        257: numbers(4, height),
        258: numbers(3, *[bits or array.dtype.itemsize * 8] * channels),
        259: numbers(3, 8 if deflate else 1),
        262: numbers(3, photometric if photometric is not None else 1 if channels < 3 else 2),
        273: numbers(4, *starts),
        277: numbers(3, channels),
        278: numbers(4, height),
        279: numbers(4, *map(len, strips)),
        284: numbers(3, 2 if planar else 1),
        339: numbers(3, *[sample_format] * channels),
        **({338: numbers(3, extra_samples)} if channels in (2, 4) and photometric != 5 else {}),
        **(more or {}),
    }
    link = 4
    for page in range(pages):
        link = _directory(out, order, link, fields | {254: numbers(4, subfile if page else 0)})
    return bytes(out)


def _directory(out: bytearray, order: str, link: int, fields: dict[int, tuple[int, int, bytes]]) -> int:
    out += bytes(len(out) % 2)
    at = len(out)
    out[link : link + 4] = struct.pack(order + "L", at)
    rows, blobs, end = b"", b"", at + 6 + 12 * len(fields)
    for tag, (kind, count, raw) in sorted(fields.items()):
        place = raw.ljust(4, b"\x00")
        if len(raw) > 4:
            place, blobs = struct.pack(order + "L", end + len(blobs)), blobs + raw + bytes(len(raw) % 2)
        rows += struct.pack(order + "HHL", tag, kind, count) + place
    out += struct.pack(order + "H", len(fields)) + rows + bytes(4) + blobs
    return end - 4


# --- colour profiles ---------------------------------------------------------------------------------------------

P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))


def _icc(space: bytes, kind: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body, at = struct.pack(">L", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += struct.pack(">4sLL", name, at + len(body), len(data))
        body += data
    header = struct.pack(">L4sL4s4s4s12s4s", at + len(body), b"", 0x02400000, kind, space, pcs, bytes(12), b"acsp")
    header = header.ljust(68, b"\x00") + _fixed(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\x00") + table + body


def _gamma(value: float) -> bytes:
    return struct.pack(">4s4xLH", b"curv", 1, round(value * 256))


def _point(*xyz: float) -> bytes:
    return b"XYZ \x00\x00\x00\x00" + _fixed(*xyz)


def rgb_profile(columns=P3, gamma: float = 2.2) -> bytes:
    tags = {name: _point(*xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _gamma(gamma))
    return _icc(b"RGB ", b"mntr", b"XYZ ", {**tags, b"wtpt": _point(0.9642, 1, 0.8249)})


def grey_profile(gamma: float = 1.8) -> bytes:
    return _icc(b"GRAY", b"mntr", b"XYZ ", {b"kTRC": _gamma(gamma), b"wtpt": _point(0.9642, 1, 0.8249)})


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@cache
def cmyk_profile() -> bytes:
    """A printer of ideal inks: a table from inks to Lab and one back, the way real ones are made."""
    inks = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 4, indexing="ij"), -1).reshape(-1, 4)
    rgb = ((1 - inks[:, :3]) * (1 - inks[:, 3:]) * 255).round().astype(np.uint8)
    steps = np.linspace(0, 255, 17).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 17, 3)
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    to_lab = ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
    to_rgb = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
    raw = ImageCms.applyTransform(Image.fromarray(rgb[None]), to_lab).tobytes()
    seen = np.frombuffer(raw, np.uint8).reshape(-1, 3).astype(np.uint16)
    seen[:, 1:] ^= 0x80  # Pillow keeps a and b signed
    signed = grid.copy()
    signed[..., 1:] ^= 0x80
    back = Image.frombytes("LAB", (17, len(grid)), signed.tobytes())
    inks = 1 - np.asarray(ImageCms.applyTransform(back, to_rgb)).reshape(-1, 3) / 255
    back = np.concatenate([inks, np.zeros((len(inks), 1))], 1)
    tags = {
        b"A2B0": _table(4, 3, 9, seen * 257.0 * (65280 / 65535)),
        b"B2A0": _table(3, 4, 17, back * 65535),
        b"wtpt": _point(0.9642, 1, 0.8249),
    }
    return _icc(b"CMYK", b"prtr", b"Lab ", tags)


def scanner_profile(kind: str = "mft2") -> bytes:
    """A scanner's profile: a table from its RGB to Lab, and none back. Its colours are sRGB's, red and blue swapped."""
    steps = np.linspace(0, 255, 17).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(1, -1, 3)[..., ::-1]
    way = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    raw = ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(grid)), way).tobytes()
    seen = np.frombuffer(raw, np.uint8).reshape(-1, 3).astype(np.uint16)
    seen[:, 1:] ^= 0x80  # Pillow keeps a and b signed
    table = {
        "mft2": lambda: _table(3, 3, 17, seen * 257.0 * (65280 / 65535)),
        "mft1": lambda: _small_table(17, seen.astype(np.uint8)),
        "mAB ": lambda: _curves_and_table(17, seen * 257),
    }[kind]()
    return _icc(b"RGB ", b"scnr", b"Lab ", {b"A2B0": table, b"wtpt": _point(0.9642, 1, 0.8249)})


def _small_table(grid: int, values: np.ndarray) -> bytes:
    head = b"mft1" + bytes(4) + bytes((3, 3, grid, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    return head + bytes(range(256)) * 3 + values.tobytes() + bytes(range(256)) * 3


def _curves_and_table(grid: int, values: np.ndarray) -> bytes:
    straight = b"curv" + bytes(8)
    table = bytes((grid, grid, grid)) + bytes(13) + b"\2\0\0\0" + values.astype(">u2").tobytes()
    at = 32 + 3 * len(straight)
    head = b"mAB " + bytes(4) + b"\3\3\0\0" + struct.pack(">5L", 32, 0, 0, at, at + len(table) + -len(table) % 4)
    return head + straight * 3 + table + bytes(-len(table) % 4) + straight * 3


def _table(inputs: int, outputs: int, grid: int, values: np.ndarray) -> bytes:
    straight = struct.pack(">2H", 0, 65535)
    head = b"mft2" + bytes(4) + bytes((inputs, outputs, grid, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    body = np.rint(values).astype(">u2").tobytes()
    return head + struct.pack(">HH", 2, 2) + straight * inputs + body + straight * outputs


# --- metadata ----------------------------------------------------------------------------------------------------

THUMBNAIL = b"\xff\xd8THUMBNAIL" + bytes(range(200)) + b"\xff\xd9"
MAKER_NOTE = b"MakerNote whose offsets count from the block's start" * 3


def exif_block(orientation: int = 6, order: str = "<") -> bytes:
    """What a camera writes: main, detail and GPS directories, a maker's note, a thumbnail at the end."""
    out = bytearray((b"II*\x00" if order == "<" else b"MM\x00*") + bytes(4))

    def blob(data: bytes) -> int:
        at = len(out)
        out.extend(data + bytes(len(data) % 2))
        return at

    def row(tag: int, kind: int, count: int, value: int) -> bytes:
        last = struct.pack(order + ("HH" if kind == 3 else "L"), *((value, 0) if kind == 3 else (value,)))
        return struct.pack(order + "HHL", tag, kind, count) + last

    def put(rows: list[bytes], following: int = 0) -> int:
        return blob(struct.pack(order + "H", len(rows)) + b"".join(rows) + struct.pack(order + "L", following))

    note = blob(MAKER_NOTE)
    make = blob(b"Maker of Cameras\x00")
    place = blob(struct.pack(order + "6L", 52, 1, 31, 1, 12, 1))
    gps = put([struct.pack(order + "HHL4s", 1, 2, 2, b"N\x00\x00\x00"), row(2, 5, 3, place)])
    details = put([row(0x927C, 7, len(MAKER_NOTE), note), row(0xA002, 4, 1, 4000), row(0xA003, 4, 1, 3000)])
    main_at = len(out)
    main_size = 2 + 12 * 4 + 4
    second_at = main_at + main_size + main_size % 2
    second_size = 2 + 12 * 2 + 4
    thumbnail_at = second_at + second_size
    rows = [row(0x10F, 2, 17, make), row(0x112, 3, 1, orientation), row(0x8769, 4, 1, details), row(0x8825, 4, 1, gps)]
    put(rows, second_at)
    put([row(0x201, 4, 1, thumbnail_at), row(0x202, 4, 1, len(THUMBNAIL))])
    out.extend(THUMBNAIL)
    out[4:8] = struct.pack(order + "L", main_at)
    return bytes(out)


XMP = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 tiff:Orientation="6" exif:GPSLatitude="52,31.2N" e:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">A caf\xc3\xa9 &amp; more</rdf:li></rdf:Alt></dc:title>
<exif:PixelXDimension>4000</exif:PixelXDimension>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""

IPTC = b"\x1c\x02\x00\x00\x02\x00\x04\x1c\x02\x78\x00\x05Hello"


def photoshop(records: bytes = IPTC) -> bytes:
    """An APP13 segment with a thumbnail resource before the IPTC one."""
    other = b"8BIM\x04\x0c\x00\x00" + struct.pack(">L", 3) + b"abc\x00"
    body = b"Photoshop 3.0\x00" + other + b"8BIM\x04\x04\x00\x00" + struct.pack(">L", len(records)) + records
    body += bytes(len(records) % 2)
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body
