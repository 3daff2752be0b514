"""`srcli report`: totals from the journal of a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def print_report(
    journal: Annotated[Path, typer.Argument(help="A journal, or the folder of results that it lies in.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Sum up a batch: totals, the slowest pictures, failures by class."""
    from srcli.batch.journal.previous_runs import summarize_journal

    found = summarize_journal(journal)
    print(json.dumps(found.fields()) if as_json else "\n".join(found.lines()))
