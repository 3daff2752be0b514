"""Start-up time of commands, each time in a new process.

python -m benchmarks.startup [--times 3]
"""

from __future__ import annotations

import argparse
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


def seconds(arguments: list[str], times: int) -> float:
    """The least processor time of a command."""
    spent = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description="How long the program takes to answer.")
    parser.add_argument("--times", type=int, default=3, help="the least of so many is taken")
    times = parser.parse_args().times
    rows = [[name, f"{seconds(arguments, times):.2f}"] for name, arguments in SAID.items()]
    print("## Start\n\n" + table(["what", "processor s"], rows))


if __name__ == "__main__":
    main()
