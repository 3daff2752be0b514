"""Names are shown on one line and harmless."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcli.imaging.printable import printable


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain.png", "plain.png"),
        ("café 日本.png".encode(), "café 日本.png"),
        (b"\xff\xe9.png", "\\xff\\xe9.png"),
        (b"a\nb\tc\r.png", "a\\nb\\tc\\r.png"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        ("\u202egnp.exe".encode(), "\\u202egnp.exe"),
        ("\u2028".encode(), "\\u2028"),
        ("\U000e0001".encode(), "\\U000e0001"),
        (b"[red]:smile:", "[red]:smile:"),
    ],
)
def test_shown(name, text):
    assert printable(name) == text
    assert printable(os.fsdecode(name)) == text
    assert printable(Path(os.fsdecode(name))) == text


def test_half_a_character():
    assert printable("a\ud800.png") == "a\\ud800.png"


@given(st.binary(max_size=40))
def test_every_name_can_be_printed(name):
    text = printable(name)
    assert text.isprintable() or all(c.isprintable() or c.isspace() for c in text)
    assert not set("\n\r\t\x1b") & set(text)
    text.encode("utf-8")
