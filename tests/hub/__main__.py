"""`python -m tests.hub PORT FOLDER [FAULT...]`: serve FOLDER/owner/name repositories until interrupted.

A FAULT is KIND[:PATTERN[:VALUE[:TIMES]]], such as `cut:*.safetensors:1000:1` or `status:*:429`.
"""

import sys
import time
from pathlib import Path

from tests.hub import Fault, Hub


def parse(text: str) -> Fault:
    kind, *rest = text.split(":")
    given = dict(zip(("path", "value", "times"), rest, strict=False))
    return Fault(kind, given.get("path", "*"), float(given.get("value", 0)), int(given.get("times", 1_000_000)))


def main(arguments: list[str]) -> None:
    port, folder, *faults = arguments
    with Hub(Path(folder), int(port), faults=[parse(text) for text in faults]) as hub:
        print(f"HF_ENDPOINT={hub.url}", flush=True)
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main(sys.argv[1:])
