"""Put the sections of several visits, or of several parts of one, into one gpu.json and gpu.md.

python -m benchmarks.gpu.merge GPU.JSON... --out FOLDER [--note TEXT ...]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import facts_of, write_results


def merge(parts: list[dict[str, Any]], notes: list[str]) -> dict[str, Any]:
    """All sections under the facts of the first part; what was measured elsewhere is refused."""
    merged = parts[0] | {"sections": {}, "errors": [], "notes": notes}
    for part in parts:
        if facts_of(part) != facts_of(parts[0]):
            raise ValueError(f"measured elsewhere: {facts_of(part)}")
        merged["sections"] |= part["sections"]
        merged["errors"] += part["errors"]
        merged["notes"] += part.get("notes", [])
    return merged


def main() -> None:
    parser = argparse.ArgumentParser(description="Merge results of benchmarks.gpu.")
    parser.add_argument("parts", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--note", nargs="+", default=[], help="what a reader of the results has to know")
    given = parser.parse_args()
    write_results(given.out, merge([json.loads(part.read_text()) for part in given.parts], given.note))


if __name__ == "__main__":
    main()
