"""Merge several gpu.json into one gpu.json and gpu.md.

python -m benchmarks.gpu.merge GPU.JSON... --out FOLDER [--note TEXT ...]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import facts_of, write_results


def merge(parts: list[dict[str, Any]], notes: list[str]) -> dict[str, Any]:
    """All sections, with the facts of the first part. Raises ValueError for results of another machine."""
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
    args = parser.parse_args()
    write_results(args.out, merge([json.loads(part.read_text()) for part in args.parts], args.note))


if __name__ == "__main__":
    main()
