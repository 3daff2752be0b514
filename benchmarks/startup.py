"""How long the program takes to answer, each time in a fresh process.

python -m benchmarks.startup
"""

from __future__ import annotations

import resource
import subprocess
import sys

from benchmarks.tables import table

SAID = {
    "an empty Python": ["-c", "pass"],
    "srcli --version": ["-m", "srcli", "--version"],
    "srcli upscale --help": ["-m", "srcli", "upscale", "--help"],
    "a picture that is not there": ["-m", "srcli", "upscale", "nowhere.png"],
    "import of the pipeline": ["-c", "import srcli.pipeline"],
}


def seconds(arguments: list[str], times: int = 3) -> float:
    """The least processor time of a command."""
    spent = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


def main() -> None:
    rows = [[name, f"{seconds(arguments):.2f}"] for name, arguments in SAID.items()]
    print("## Start\n\n" + table(["what", "processor s"], rows))


if __name__ == "__main__":
    main()
