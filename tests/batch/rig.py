"""The real command line in a process of its own, with a pipeline that needs no models.

    python -m tests.batch.rig SECONDS upscale ...

SECONDS is what one picture takes.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tests.batch.fakes import Repeat

ROOT = Path(__file__).parents[2]


def start(*arguments: object, seconds: float = 0.0, **more: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.batch.rig", str(seconds), "upscale", *map(str, arguments)]
    kind = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **kind)


def main() -> None:
    from srcli import cli
    from srcli.batch.orders import Maker
    from srcli.engines import choose

    seconds = float(sys.argv.pop(1))
    choose.choose = lambda task, wish, device, tell: replace(wish, engine="builtin")
    Maker.load = lambda self, tell: Repeat(seconds)
    cli.main()


if __name__ == "__main__":
    main()
