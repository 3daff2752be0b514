"""The commands that README and docs show, and a way to run a line of them in this process."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner

from srcli.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NEEDS = {
    "weights": 4,
    "a cluster": None,
    "a browser": None,
    "Ctrl-C": None,
    "large pictures": None,
}  # what a line may be marked to need, and how it ends without that
SMALLER = {"30x20cm@300dpi": "5x3mm@300dpi", "--workers 4": "--workers 1"}  # so that a test takes no time


@dataclass(frozen=True)
class Shown:
    """One line of a block of commands."""

    text: str
    needs: str | None

    @property
    def pipeline(self) -> list[list[str]]:
        """The words of each program in the line."""
        text = self.text
        for large, small in SMALLER.items():
            text = text.replace(large, small)
        lexer = shlex.shlex(text, posix=True, punctuation_chars="|<>")
        lexer.whitespace_split = True
        programs: list[list[str]] = [[]]
        for word in lexer:
            if word == "|":
                programs.append([])
            else:
                programs[-1].append(word)
        return programs


def fences(page: Path, language: str) -> list[str]:
    return [block for kind, block in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def shown(page: Path) -> list[Shown]:
    """The lines of a page's `sh` blocks, without comments."""
    found = []
    for line in "".join(fences(page, "sh")).splitlines():
        text, _, comment = re.sub(r"(^|\s)#", "\0", line, count=1).partition("\0")
        needs = next((need for need in NEEDS if f"needs {need}" in comment), None)
        found += [Shown(text.strip(), needs)] if text.strip() else []
    return found


def run(line: Shown) -> tuple[int, str]:
    """Run a line in the current folder: srcli in this process, other programs of a pipe beside it."""
    code, data, said = 0, b"", ""
    for words in line.pipeline:
        words, data, target = _redirected(words, data)
        if words[0] == "srcli":
            result = CliRunner().invoke(app, words[1:], input=data)
            code, data, said = result.exit_code, result.stdout_bytes, result.output
        else:
            done = subprocess.run(words, input=data, capture_output=True, check=False)
            code, data, said = max(code, done.returncode), done.stdout, done.stderr.decode()
        if target:
            Path(target).write_bytes(data)
    return code, said


def _redirected(words: list[str], data: bytes) -> tuple[list[str], bytes, str | None]:
    target = None
    if ">" in words:
        target = words[words.index(">") + 1]
        words = words[: words.index(">")]
    if "<" in words:
        data = Path(words[words.index("<") + 1]).read_bytes()
        words = words[: words.index("<")]
    return words, data, target


FOLDERS = ("album", "archive", "scans", "sharp", "mine", "theirs", "album/1950")
FILES = (
    "photo.jpg",
    "in.jpg",
    "in.png",
    "scan.tif",
    "portrait.jpg",
    "wedding.png",
    "mine.png",
    "theirs.png",
    "truth.png",
)

MEASURED = ("sharp", "mine", "theirs")  # metrics look at windows of 11 pixels


def furnish(folder: Path) -> None:
    """Put there what the commands of the documents name."""
    y, x = np.mgrid[:16, :24]
    picture = Image.fromarray(
        np.stack([10 * x, 14 * y, 128 + 60 * np.sin(x / 3)], axis=2).clip(0, 255).astype(np.uint8)
    )
    for name in FOLDERS:
        (folder / name).mkdir()
        for each in ("one.png", "two.png"):
            (picture.resize((48, 32)) if name in MEASURED else picture).save(folder / name / each)
    for name in FILES:
        picture.save(folder / name)
    for name in ("grandmother.png", "portrait.png"):
        picture.convert("L").save(folder / name)
    for name in ("portrait-strokes.png", "another-portrait.jpg"):
        picture.save(folder / name)
    (folder / "masks").mkdir()
    mask = Image.new("L", picture.size)
    mask.paste(255, (8, 8, 14, 10))
    for name in ("scratches.png", "masks/one.png"):
        mask.save(folder / name)
    save_file(CHECKPOINT, folder / "mystyle.safetensors")


# As much of a Stable Diffusion 1.5 checkpoint as its family is read from.
CHECKPOINT = {
    "model.diffusion_model.input_blocks.0.0.weight": np.zeros((4, 4, 3, 3), np.float16),
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": np.zeros((8, 768), np.float16),
}
