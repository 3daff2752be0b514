"""Strategies that spoil good input: bytes cut, doubled and overwritten, and JSON with any value in any place."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

EDGES = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
NUMBERS = tuple(
    struct.pack(order + size, n)
    for n in EDGES
    for size, top in zip("BHIQ", (8, 16, 32, 64), strict=True)
    if n < 1 << top
    for order in "<>"
)
MOST = 1 << 16  # bytes of a spoiled input


def _put(data: bytes, start: int, put_in: bytes) -> bytes:
    return data[:start] + put_in + data[start + len(put_in) :]


def _insert(data: bytes, start: int, put_in: bytes) -> bytes:
    return data[:start] + put_in + data[start:]


def _cut(data: bytes, start: int, put_in: bytes) -> bytes:
    return data[:start] + data[start + len(put_in) :]


def _end(data: bytes, start: int, put_in: bytes) -> bytes:
    return data[:start]


def _repeat(data: bytes, start: int, put_in: bytes) -> bytes:
    return data[:start] + data[start : start + 64] * (1 + len(put_in)) + data[start:]


CHANGES: tuple[Callable[[bytes, int, bytes], bytes], ...] = (_put, _put, _put, _insert, _cut, _end, _repeat)


@st.composite
def spoiled(draw: st.DrawFn, seeds: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """One of `seeds` after a few changes, in which edge numbers and `words` of the format turn up."""
    data = draw(st.sampled_from(seeds))
    pieces = st.one_of(st.binary(max_size=16), st.sampled_from((*NUMBERS, *words)))
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 2, 3, 5)))):
        change, start, piece = draw(st.sampled_from(CHANGES)), draw(st.integers(0, len(data))), draw(pieces)
        data = change(data, start, piece)[:MOST]
    return data


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 2**63, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.text(alphabet="\ud800\udfff\x00/.", max_size=4),
    st.just([]),
    st.just({}),
)
ANY_JSON = st.recursive(ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))


@st.composite
def odd_json(draw: st.DrawFn, seeds: Sequence[Any], nests: bool = True) -> bytes:
    """The text of one of `seeds` in which some values were replaced, dropped or nested deeply."""
    found = json.loads(json.dumps(draw(st.sampled_from(seeds))))
    for _ in range(draw(st.integers(0, 3))):
        found = _changed(draw, found)
    text = json.dumps(found)
    if nests and draw(st.integers(0, 30)) == 0:
        text = text.replace("1", "[" * 20_000, 1)
    return text.encode()


def _changed(draw: st.DrawFn, value: Any) -> Any:
    """`value` with one place in it changed, nearer the leaves as a rule."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not keys or draw(st.integers(0, 4)) == 0:
        return draw(ANY_JSON)
    key = draw(st.sampled_from(keys))
    if isinstance(value, dict) and draw(st.integers(0, 5)) == 0:
        return {name: item for name, item in value.items() if name != key}
    value[key] = _changed(draw, value[key])
    return value
