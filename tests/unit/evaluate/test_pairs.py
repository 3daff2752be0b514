"""Pairing by name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from srcli.errors import InputError
from srcli.evaluate.pairs import find_partner, index_pictures, pair_by_name


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return folder


@pytest.mark.parametrize(
    ("name", "partner"),
    [
        ("cat", "cat"),
        ("cat_x4", "cat"),
        ("catx4", "cat"),
        ("cat_2_x4", "cat_2"),
        ("cat_3_x4", "cat"),
        ("sub/cat_restored", "sub/cat"),
        ("category", None),
        ("ca", None),
    ],
)
def test_a_result_is_named_after_its_reference(name, partner):
    assert find_partner(name, ["cat", "cat_2", "sub/cat"]) == partner


def test_folders_are_paired_and_what_is_left_is_told(tmp_path):
    results = put(tmp_path / "results", "a_x4.png", "sub/b_x4.webp", "stray.png")
    truths = put(tmp_path / "truths", "a.jpg", "sub/b.png", "lonely.png")
    sources = put(tmp_path / "sources", "a.png", "sub/b.png")
    pairs, notes = pair_by_name(results, truths, sources)
    assert [pair.name for pair in pairs] == ["a", "sub/b"]
    assert pairs[1].result == results / "sub/b_x4.webp"
    assert (pairs[0].truth, pairs[0].source) == (truths / "a.jpg", sources / "a.png")
    assert [note.split(" has no ")[1] for note in notes] == ["reference of its name: left out", "result of its name"]
    assert "stray" in notes[0]
    assert "lonely" in notes[1]


def test_two_files_are_a_pair_whatever_their_names(tmp_path):
    put(tmp_path, "one.png", "other.jpg")
    (pair,), notes = pair_by_name(tmp_path / "one.png", tmp_path / "other.jpg", None)
    assert (pair.name, notes) == ("other", [])


def test_other_files_and_hidden_ones_are_no_pictures(tmp_path):
    put(tmp_path, "a.png", ".b.png", ".cache/c.png")
    (tmp_path / "notes.txt").write_text("none")
    assert list(index_pictures(tmp_path)) == ["a"]


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        (lambda p: pair_by_name(p / "none", None, None), "does not exist"),
        (lambda p: pair_by_name(p / "empty", p / "truths", None), "holds no picture"),
        (lambda p: pair_by_name(p / "truths", p / "truths", None), "is its own reference"),
        (lambda p: pair_by_name(p / "truths" / "a.png", None, p / "truths" / "a.png"), "is its own input"),
        (lambda p: pair_by_name(p / "others", p / "truths", None), "no result has a partner"),
        (lambda p: pair_by_name(p / "double", p / "truths", None), "are both results for a"),
        (lambda p: pair_by_name(p / "twins", p / "truths", None), "have the same name"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arrange, message):
    (tmp_path / "empty").mkdir()
    put(tmp_path / "truths", "a.png")
    put(tmp_path / "others", "z.png")
    put(tmp_path / "double", "a_x4.png", "a_x2.png")
    put(tmp_path / "twins", "a.png", "a.jpg")
    with pytest.raises(InputError, match=message):
        arrange(tmp_path)
