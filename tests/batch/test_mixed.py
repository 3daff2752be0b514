"""A folder with every bad thing in it, between good pictures: each is answered for, once."""

from __future__ import annotations

import json
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.batch.fakes import draw, go
from tests.batch.hostile import hostile, install

DONE = "done"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks)


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(3).integers(0, np.iinfo(dtype).max, shape, dtype)


def awkward(folder: Path) -> dict[bytes, str]:
    """Pictures that are good, however they look."""
    draw(folder / "good.png")
    draw(folder / "good.jpg", exif=_exif(6))
    draw(folder / "claims.jpg", format="PNG")
    draw(folder / "no-ending", format="PNG")
    draw(folder / "[red]x[b].png")
    draw(folder / ":smile: %d * .png")
    draw(folder / "-x.png")
    draw(folder / "new\nline\x1b[31m.png")
    draw(Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xe9.png")))
    draw(folder / "one.png", 1, 1)
    draw(folder / "strip.png", 1, 60)
    Image.fromarray(noise(8, 9, dtype=np.uint16)).save(folder / "deep.png")
    Image.fromarray(noise(8, 9, 4)).save(folder / "clear.png")
    Image.fromarray(noise(8, 9, 4), "CMYK").save(folder / "ink.jpg")
    Image.fromarray(noise(8, 9, 3)).convert("P").save(folder / "palette.gif")
    Image.fromarray(noise(8, 9)).convert("1").save(folder / "bit.png")
    (folder / "link.png").symlink_to(folder / "good.png")
    return {os.fsencode(p.name): DONE for p in folder.iterdir()}


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def bad(folder: Path) -> dict[str, str]:
    """Files that cannot be read, and the class of each failure."""
    good = (folder / "good.jpg").read_bytes()
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(good[: len(good) * 2 // 3])
    (folder / "page.jpg").write_text("<!DOCTYPE html><html>404</html>")
    (folder / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    (folder / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "print.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n")
    (folder / "next.jxl").write_bytes(b"\xff\x0a" + bytes(20))
    (folder / "sum.png").write_bytes(png(4, 4, b"\0\0\0\4IDATabcd\0\0\0\0"))
    (folder / "bomb.png").write_bytes(
        png(100_000, 100_000, chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b""))
    )
    frames = [Image.fromarray(noise(8, 9, 3)) for _ in range(2)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=[Image.new("RGB", (9, 8))])
    frames[0].save(folder / "pages.tif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.ones((4, 4), np.float32)).save(folder / "float.tif")
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "gone.png").symlink_to(folder / "nothing")
    draw(folder / ("n" * 249 + ".png"))
    hostile(folder / "kills.png", b"KILL")
    hostile(folder / "fills.png", b"FILL")
    hostile(folder / "short.png", b"OOM")
    return {
        "empty.png": "empty",
        "cut.jpg": "truncated",
        "page.jpg": "not-a-picture",
        "pointer.png": "not-a-picture",
        "drawing.svg": "unsupported",
        "print.eps": "unsupported",
        "next.jxl": "damaged",
        "sum.png": "damaged",
        "bomb.png": "too-large",
        "moving.gif": "frames",
        "pages.tif": "frames",
        "float.tif": "done",  # through OpenImageIO, which the tests have
        "pipe.png": "not-a-file",
        "loop.png": "unreadable",
        "gone.png": "missing",
        "n" * 249 + ".png": "name-too-long",
        "kills.png": "crash",
        "fills.png": "too-large",
        "short.png": "killed",
    }


def noise_of_others(folder: Path) -> None:
    """What folders hold besides pictures: nobody asked for it."""
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "._good.png").write_bytes(b"\x00\x05\x16\x07")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "notes.txt").write_text("notes")
    (folder / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as plug:
        here = Path.cwd()
        os.chdir(folder)  # a socket's name may not be long
        plug.bind("plug")
        os.chdir(here)


def test_every_file_is_answered_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "codec", monkeypatch)
    folder, out = tmp_path / "in", tmp_path / "out"
    expected = awkward(folder) | {os.fsencode(name): kind for name, kind in bad(folder).items()}
    noise_of_others(folder)
    heard = go(folder, path=str(out))
    fates = [(os.fsencode(o.source.name), o.kind or o.status) for o in heard.outcomes]
    assert dict(fates) == expected
    assert len(fates) == len(expected)
    assert heard.report.exit_code == 3
    assert (heard.report.done, heard.report.failed) == (18, 18)
    assert not [o for o in heard.outcomes if o.error is not None], "surprises are bugs"
    results = [p for p in out.iterdir() if not p.name.startswith(".")]
    assert len(results) == 18
    for path in results:
        with Image.open(path) as picture:
            picture.load()
    told = [json.loads(line) for line in (out / ".srcli-journal.jsonl").read_bytes().splitlines()]
    ends = [r["status"] for r in told if r["event"] == "picture" and r["status"] != "started"]
    assert sorted(ends) == ["done"] * 18 + ["failed"] * 18

    again = go(folder, path=str(out))
    assert again.report.skipped == 18
    assert "earlier run" in next(o.message for o in again.outcomes if o.source.name == "kills.png")


def test_a_zip_bomb_in_a_text_field_fails_alone(tmp_path: Path) -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("bomb", "0" * (70 << 20), zip=True)
    Image.fromarray(noise(8, 9, 3)).save(tmp_path / "a.png", pnginfo=notes)
    draw(tmp_path / "b.png")
    heard = go(tmp_path)
    assert heard.fate()["b.png"] == DONE
    assert heard.report.total == 2
