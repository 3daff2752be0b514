"""The real command line in a process of its own, with a pipeline that needs no models.

    python -m tests.batch.rig SECONDS upscale ...

SECONDS is what one picture takes. In the folder that RIG_TELLS names, `asked` comes to be when stdin is first read,
and `begun` when a picture is first computed.
"""

from __future__ import annotations

import io
import os
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


def tell(what: str) -> None:
    if "RIG_TELLS" in os.environ:
        (Path(os.environ["RIG_TELLS"]) / what).touch()


class Asked(io.FileIO):
    """Stdin that tells when it is read."""

    def read(self, size: int = -1) -> bytes:
        tell("asked")
        return super().read(size)

    def readinto(self, into: memoryview) -> int:
        tell("asked")
        return super().readinto(into)


def main() -> None:
    from srcli import cli
    from srcli.batch.settings import PipelineFactory
    from srcli.engines import choose

    os.environ["RIG_SECONDS"] = sys.argv.pop(1)
    choose.choose_engine = lambda task, wish, *others, **more: replace(wish, engine="builtin")
    if sys.stdin is not None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(Asked(0)))
    PipelineFactory.load = load
    cli.main()


def load(factory: object, note: object, preview: object = None) -> Repeat:
    return Repeat(float(os.environ["RIG_SECONDS"]), before=lambda picture: tell("begun"))


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":  # in a worker's process
    from srcli.batch.settings import PipelineFactory

    PipelineFactory.load = load
