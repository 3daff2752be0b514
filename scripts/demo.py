"""Enlarge a sample picture, and say what was made and what to do next: `make demo`."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from PIL import Image

SOURCE, RESULT = Path("examples/cat.jpg"), Path("out/cat_x4.png")


def main() -> int:
    """Run the program as a user does."""
    program = Path(sysconfig.get_path("scripts"), "srcli")
    began = time.monotonic()
    done = subprocess.run([program, "upscale", SOURCE, "--scale", "4", "-o", RESULT, "--overwrite"], check=False)
    if done.returncode:
        return done.returncode
    seconds = time.monotonic() - began
    megabytes = RESULT.stat().st_size / 1e6
    print(f"\nMade {RESULT}: {_size(SOURCE)} to {_size(RESULT)} pixels, {megabytes:.1f} MB, in {seconds:.0f} s.")
    shown = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    print(f"Next: {shown} upscale YOUR.jpg --scale 4      or: {shown} --help")
    return 0


def _size(path: Path) -> str:
    with Image.open(path) as picture:
        return f"{picture.width}x{picture.height}"


if __name__ == "__main__":
    sys.exit(main())
