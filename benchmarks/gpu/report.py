"""The report, written after each row, so that an early end loses one row."""

from __future__ import annotations

import json
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from benchmarks.tables import table

Row = list[str]


@dataclass(frozen=True)
class Failed:
    """A row whose measurement failed."""

    name: str
    error: str
    where: str

    @classmethod
    def of(cls, name: str, error: BaseException) -> Failed:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return cls(name, words[:300], "".join(traceback.format_exception(error)).replace(f"{Path.cwd()}/", ""))


def attempt(name: str, work: Callable[[], Sequence[str]]) -> Row | Failed:
    """The row `name`; an exception becomes a failed row."""
    try:
        return [name, *work()]
    except Exception as error:
        return Failed.of(name, error)


class Late(BaseException):
    """The time is up. Not an Exception, which a library might catch."""


@dataclass(frozen=True)
class Section:
    """A group of rows, and the most seconds that it may take."""

    rows: Callable[[Any], Iterator[Row | Failed]]
    columns: list[str]
    limit: float


@dataclass
class Report:
    """The results so far."""

    out: Path
    device: torch.device
    head: str
    facts: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.facts |= machine(self.device)

    def run(self, name: str, section: Section, bench: object, limit: float) -> None:
        """Run a section for at most `limit` seconds."""
        rows: list[Row] = []
        found = self.sections[name] = {"columns": section.columns, "rows": rows, "ended": "", "seconds": 0.0}
        began = time.perf_counter()
        signal.signal(signal.SIGALRM, _late)
        signal.setitimer(signal.ITIMER_REAL, max(0.1, limit))
        try:
            for row in section.rows(bench):
                self._take(name, row, rows)
                found["seconds"] = round(time.perf_counter() - began, 1)
                self.write()
        except Late:
            found["ended"] = f"its {limit:.0f} seconds were over"
        except Exception as error:
            self._take(name, Failed.of("the section", error), rows)
            found["ended"] = "an error"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            found["seconds"] = round(time.perf_counter() - began, 1)
            self.write()

    def _take(self, section: str, row: Row | Failed, rows: list[Row]) -> None:
        if isinstance(row, Failed):
            self.errors.append({"section": section, "row": row.name, "error": row.error, "traceback": row.where})
            print(f"{section}: {row.name} failed: {row.error}", file=sys.stderr, flush=True)
            row = [row.name, f"failed: {row.error[:100]}"]
        else:
            print(f"{section}: {' | '.join(row)}", flush=True)
        rows.append(row)

    def write(self) -> None:
        write_results(self.out, self._results())

    def text(self) -> str:
        return to_markdown(self._results())

    def _results(self) -> dict[str, Any]:
        return {**self.facts, "head": self.head, "sections": self.sections, "errors": self.errors}


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Write gpu.json and gpu.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "gpu.md").write_text(to_markdown(results), encoding="utf-8")


def to_markdown(results: dict[str, Any]) -> str:
    """The facts of the machine, then a table for each section."""
    texts = [f"# {results['head']}", ", ".join(f"{key} {value}" for key, value in facts_of(results).items())]
    texts += results.get("notes", [])
    for name, found in results["sections"].items():
        width = len(found["columns"])
        rows = [row[:width] + [""] * (width - len(row)) for row in found["rows"]]
        texts.append(f"## {name} ({found['seconds']} s)\n\n{table(found['columns'], rows)}")
        if found["ended"]:
            texts.append(f"not finished: {found['ended']}")
    return "\n\n".join(texts) + "\n"


def facts_of(results: dict[str, Any]) -> dict[str, Any]:
    """The machine and its versions."""
    return {key: value for key, value in results.items() if key not in ("head", "sections", "errors", "notes")}


def _late(*_: object) -> None:
    raise Late


def machine(device: torch.device) -> dict[str, Any]:
    """The device and the versions that were used."""
    facts: dict[str, Any] = {"device": device.type}
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        facts = {
            "device": found.name,
            "GiB": round(found.total_memory / 2**30, 1),
            "capability": f"{found.major}.{found.minor}",
            "CUDA": torch.version.cuda,
            "cuDNN": torch.backends.cudnn.version(),
        }
    versions = {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }
    return {**facts, **versions, "Python": platform.python_version()}
