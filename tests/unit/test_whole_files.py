"""Files are looked for without a surprise, hashed, and written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest

from srcli import files


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with files.replace_file(target) as fresh:
        fresh.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("begun", [True, False])
def test_after_a_failure_the_old_file_stands_alone(begun: bool, failure: type[BaseException], tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(failure), files.replace_file(target) as fresh:
        if begun:
            fresh.write_text("half")
        raise failure
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_cannot_take_its_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError), files.replace_file(tmp_path / "folder") as fresh:
        fresh.write_text("new")
    assert os.listdir(tmp_path) == ["folder"]


def test_what_is_renamed_is_on_the_disk_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append(os.readlink(f"/proc/self/fd/{number}")), sync(number)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append(f"{self} as {to.name}"), replace(self, to)))
    with files.replace_file(tmp_path / "a") as fresh:
        fresh.write_text("new")
    assert done == [str(fresh), f"{fresh} as a", str(tmp_path)]


def test_a_hash_of_a_path_and_of_what_is_open(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    wanted = hashlib.sha256(b"x" * 100_000).hexdigest()
    assert files.hash_file(tmp_path / "a") == files.hash_file(io.BytesIO(b"x" * 100_000)) == wanted


@pytest.mark.parametrize("text", ["n" * 300, "~nosuchuser/x", "a\x00b", "/dev/null/x", "half \udc80"])
def test_what_cannot_be_is_not_there_and_nothing_raises(text: str) -> None:
    path = files.expand_user(text)
    assert not files.path_exists(path) and not files.is_file(path) and not files.is_dir(path)


def test_what_is_there_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a").touch()
    found = files.expand_user("~/a")
    assert found == tmp_path / "a"
    assert files.path_exists(found) and files.is_file(found) and files.is_dir(tmp_path)
