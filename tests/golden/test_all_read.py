"""No vector lies in the folder unread."""

from importlib import import_module

import pytest
from tests.golden.cases import HERE, ROOT, unread

FLAT = ("degradation", "pasd_training", "stablesr_training")  # whose vectors lie in the folder itself
ENGINES = sorted(path.name for path in ROOT.iterdir() if (path / "vectors").is_dir() or path.name in FLAT)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_file_is_read_by_some_test(engine: str) -> None:
    for module in HERE.glob(f"test_{engine}*.py"):  # importing them registers the kinds they read
        import_module(f"tests.golden.{module.stem}")
    assert unread(engine) == []
