"""Every fuzz target on the committed corpus and on a few fresh inputs; `make fuzz` goes on for as long as is wanted."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import CORPUS, TARGETS

CASES = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.rglob("*") if path.is_file())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_what_was_once_found_stays_mended(case: str) -> None:
    TARGETS[case.split("/")[0]]((CORPUS / case).read_bytes())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_fresh_inputs(name: str) -> None:
    accepted = []

    @settings(max_examples=30, suppress_health_check=list(HealthCheck))
    @given(TARGETS[name].inputs)
    def once(data: bytes) -> None:
        accepted.append(TARGETS[name](data))

    once()
    assert True in accepted, "the inputs are so spoiled that nothing behind the first check is reached"


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_that_fails_otherwise_is_a_finding(name: str) -> None:
    target = TARGETS[name]
    broken = type(target)(lambda data: 1 // 0, target.inputs)
    with pytest.raises(ZeroDivisionError):
        broken(b"")
    assert isinstance(target.inputs, st.SearchStrategy)
