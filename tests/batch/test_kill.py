"""Runs that are killed, again and again: the folder ends as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.batch.kills import run_kills


@pytest.mark.parametrize(("workers", "kills"), [(1, 4), (2, 2)])
def test_any_number_of_kills_leaves_what_an_undisturbed_run_leaves(tmp_path: Path, workers: int, kills: int) -> None:
    assert run_kills(tmp_path, kills, workers).sent.total() == kills
