"""The lock: what it takes, and where it says a fault is."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srcli.errors import WeightsError
from srcli.weights.lock import ENTRY_KINDS, Entry, File, find_entry, parse_lock, read_lock, safe_path
from srcli.weights.overlay import format_lock, is_completed_by, merge_locks, read_overlay, remove_entry, write_entry
from srcli.weights.places import packaged_lock

HASH = "ab" * 32
GOOD = f"""schema = 1

[sd15]
kind = "base"
family = "sd15"
license = "mit"
repo = "org/sd15"
revision = "{"1" * 40}"

[sd15.files]
"unet/config.json" = {{ size = 3, sha256 = "{HASH}" }}

[end]
entries = 1
"""
LOCK = Path("some.lock")


def test_a_good_lock_is_read() -> None:
    entry = parse_lock(GOOD, LOCK)["sd15"]
    assert entry.files == {"unet/config.json": File("unet/config.json", 3, HASH)}
    assert entry.pinned and entry.listed and entry.size == 3


def test_line_ends_do_not_matter() -> None:
    assert parse_lock(GOOD.replace("\n", "\r\n"), LOCK) == parse_lock(GOOD, LOCK)


# what is changed, the line that is named, what is said
ROWS = {
    "schema of a later time": ("schema = 1", "schema = 2", 1, "schema is 2"),
    "no schema": ("schema = 1\n", "\n", 1, "schema is None"),
    "no end": ("[end]\nentries = 1\n", "", 12, "incomplete, without"),
    "one entry lost": ("entries = 1", "entries = 2", 14, "1 entries found, 2 expected"),
    "cut in a line": ('license = "mit"', 'license = "m', 6, ""),
    "cut in a table": ('"unet/config.json"', '"unet/conf', 11, ""),
    "merge conflict": ("[sd15]\n", "<<<<<<< ours\n[sd15]\n=======\n>>>>>>> theirs\n", 3, "unresolved merge"),
    "twice the same table": ("[end]", '[sd15]\nkind = "base"\n[end]', 13, "twice"),
    "twice the same key": ('kind = "base"', 'kind = "base"\nkind = "lora"', 5, ""),
    "no kind": ('kind = "base"\n', "", 3, "lacks 'kind'"),
    "a kind that is none": ('kind = "base"', 'kind = "boss"', 4, "'boss' is not one of "),
    "an unknown field": ('kind = "base"', 'kind = "base"\nkid = 1', 5, "unknown field 'kid'"),
    "a number for a text": ('family = "sd15"', "family = 15", 5, "'family' is not a str"),
    "true for a number": ('family = "sd15"', 'family = "sd15"\nabout = true', 6, "'about' is not a int"),
    "a number in a list": ('family = "sd15"', 'family = "sd15"\nneeds = [1]', 6, "list of strings"),
    "no repository": ("org/sd15", "../sd15", 7, "is not a repository name"),
    "a short revision": ("1" * 40, "1" * 39, 8, "40 hex digits"),
    "a short hash": (HASH, HASH[:-1], 11, "64 hex digits"),
    "a hash in capitals": (HASH, HASH.upper(), 11, "64 hex digits"),
    "a negative size": ("size = 3", "size = -3", 11, "not a number of bytes"),
    "a fact too many": ("size = 3", "size = 3, md5 = 1", 11, "a field other than"),
    "a path upwards": ("unet/config.json", "../../.bashrc", 11, "is not a relative path within its folder"),
    "a path inside and upwards": ("unet/config.json", "unet/../../x", 11, "is not a relative path within its folder"),
    "an absolute path": ("unet/config.json", "/etc/passwd", 11, "is not a relative path within its folder"),
    "a path of another system": ("unet/config.json", "C:/x", 11, "is not a relative path within its folder"),
    "a folder upwards": ('family = "sd15"', 'family = "sd15"\nfolder = ".."', 6, "within its repository"),
    "a pattern upwards": ('family = "sd15"', 'family = "sd15"\ninclude = ["../*"]', 6, "within its repository"),
    "a bad name": ("[sd15]", '["a b"]\n[sd15]', 3, "not a valid name of a model"),
    "no file": (f'"unet/config.json" = {{ size = 3, sha256 = "{HASH}" }}', "", 3, "has neither files nor patterns"),
    "a hash without a revision": (f'revision = "{"1" * 40}"\n', "", 3, "has a hash but neither a revision nor"),
    "a short blob": (f'sha256 = "{HASH}"', 'blob = "abc"', 11, "the blob of"),
    "a blob of the Hub": (f'sha256 = "{HASH}"', f'blob = "{"1" * 40}"', 11, "has a blob, but sd15 has no address"),
    "an address beside a repository": ("repo =", 'address = "https://a.b/c"\nrepo =', 7, "and with nothing else"),
    "an address that is none": ('repo = "org/sd15"', 'address = "http://a.b/c"', 7, "not an https address"),
    "an address with a query": ('repo = "org/sd15"', 'address = "https://a.b/c?d"', 7, "not an https address"),
    "a file of an address without a blob": ('repo = "org/sd15"', 'address = "https://a.b/c"', 11, "has no blob"),
    "an entry that is no table": ("\n[sd15]", "sd16 = 1\n[sd15]", 2, "not a table"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_fault_is_named_with_file_and_line(row: str) -> None:
    old, new, line, said = ROWS[row]
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    with pytest.raises(WeightsError) as error:
        parse_lock(text, LOCK)
    assert str(error.value).startswith(f"some.lock:{line}: ")
    assert said in str(error.value) and "\n" not in str(error.value)
    assert error.value.exit_code == 4


@pytest.mark.parametrize("keep", range(0, len(GOOD) - 1, 7))
def test_no_beginning_of_a_lock_passes_for_the_whole(keep: int) -> None:
    with pytest.raises(WeightsError, match=r"some\.lock:\d+: "):
        parse_lock(GOOD[:keep], LOCK)


@settings(max_examples=150)
@given(
    st.integers(0, len(GOOD)),
    st.integers(0, 30),
    st.text(max_size=6) | st.sampled_from(["[", "]", "=", '"', "{", "\n", "[[a]]\n"]),
)
def test_a_mangled_lock_is_read_or_refused_and_nothing_else(start: int, cut: int, put_in: str) -> None:
    text = GOOD[:start] + put_in + GOOD[start + cut :]
    try:
        found = parse_lock(text, LOCK)
    except WeightsError as error:
        assert re.match(r"some\.lock:\d+: ", str(error))
        assert 1 <= int(str(error).split(":")[1]) <= max(1, text.count("\n") + 1)
    else:
        assert all(safe_path(path) for known in found.values() for path in known.files)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "weights.lock"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(WeightsError, match=r"weights\.lock:1: not UTF-8"):
        read_lock(path)


@pytest.mark.parametrize(
    "path", ["", "/x", "a//b", "./a", "a/.", "a/../b", "..", "a\\b", "a\0b", "a:b", "x" * 2000, "a/"]
)
def test_paths_that_leave_their_folder(path: str) -> None:
    assert not safe_path(path)


@given(st.lists(st.sampled_from("abc./\\:~ \0"), max_size=12).map("".join))
def test_a_safe_path_stays_inside(path: str) -> None:
    root = Path("/root/folder")
    if safe_path(path):
        import os.path

        assert os.path.normpath(root / path).startswith("/root/folder/")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
hashes = st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)
files = st.builds(
    File, st.from_regex(r"[a-z]{1,5}(/[a-zé ]{1,5})?", fullmatch=True), st.none() | st.integers(0, 2**50), hashes
)
entries = st.builds(
    Entry,
    name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}|[a-z]{1,5}/[a-z]{1,5}(@main)?", fullmatch=True).filter(
        lambda name: name not in ("end", "schema")
    ),
    kind=st.sampled_from(ENTRY_KINDS),
    family=st.just("sd15"),
    license=st.just("a \"licence\" with 'quotes' and é\t\x7f"),
    title=texts,
    files=st.lists(files, min_size=1, max_size=3).map(lambda several: {file.path: file for file in several}),
    needs=st.lists(st.from_regex(r"[a-z]{1,5}", fullmatch=True), max_size=2).map(tuple),
    about=st.none() | st.integers(0, 2**40),
    learned=st.booleans(),
)


@settings(max_examples=20)
@given(st.lists(entries, max_size=4).map(lambda several: {entry.name: entry for entry in several}))
def test_what_is_written_is_read_again(several: dict[str, Entry]) -> None:
    assert parse_lock(format_lock(several), LOCK) == several


def entry(**facts: object) -> Entry:
    given = {"name": "x", "kind": "base", "family": "sd15", "license": "mit", "repo": "a/b"} | facts
    return Entry(**{"files": {"f": File("f")}} | given)  # type: ignore[arg-type]


def test_what_was_learned_fills_in_and_never_contradicts() -> None:
    bare = entry(include=("f",), files={})
    learned = entry(learned=True, revision="1" * 40, files={"f": File("f", 1, HASH)})
    assert merge_locks({"x": bare}, {"x": learned})["x"] == learned
    moved, pinned = entry(repo="c/d", include=("f",), files={}), entry(revision="2" * 40)
    known = entry(files={"f": File("f", 1, "cd" * 32)})
    for packaged in (moved, pinned, known):
        assert not is_completed_by(packaged, learned)
        assert merge_locks({"x": packaged}, {"x": learned})["x"] == packaged
    assert merge_locks({}, {"x": learned}) == {}


def test_the_users_lock_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "config" / "weights.lock"
    write_entry(path, entry(name="one"))
    write_entry(path, entry(name="two"))
    assert sorted(read_overlay(path)) == ["one", "two"]
    assert remove_entry(path, "one") and not remove_entry(path, "one")
    assert sorted(read_overlay(path)) == ["two"]
    assert sorted(item.name for item in path.parent.iterdir()) == [".lock", "weights.lock"]


def test_a_damaged_lock_of_the_user_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "weights.lock"
    path.write_text("schema = 1\n[x", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"weights\.lock:2"):
        write_entry(path, entry())
    assert path.read_text(encoding="utf-8") == "schema = 1\n[x"


def test_a_name_of_another_kind_is_told_from_no_name() -> None:
    lock = {"x": entry(), "y": entry(name="y", kind="lora")}
    assert find_entry(lock, "x", "base").name == "x"
    with pytest.raises(WeightsError, match="y is a lora, not a base: choose one of x"):
        find_entry(lock, "y", "base")
    with pytest.raises(WeightsError, match="no base named 'z': choose one of x"):
        find_entry(lock, "z", "base")
    with pytest.raises(WeightsError, match="no weight named 'z': see srcli models list"):
        find_entry(lock, "z")
    with pytest.raises(WeightsError, match=r"no base named 'dremshaper': did you mean dreamshaper\?"):
        find_entry({"dreamshaper": entry(name="dreamshaper")}, "dremshaper", "base")


def test_the_packaged_lock_is_in_order() -> None:
    lock = read_lock(packaged_lock())
    for name, known in lock.items():
        assert known.title and len(known.title) <= 60, name
        assert known.form_of in ("", *lock), name
        for need in known.needs:
            assert need.partition("/")[0] in lock, (name, need)
        if known.user_supplied:
            assert known.source.startswith("https://"), name


@pytest.mark.parametrize(
    "name", ["pasd", "pasd-rrdb", "pasd-light", "pasd-light-rrdb", "pasd-light-color", "sd15", "sd21-base", "stablesr"]
)
def test_the_weights_of_the_mission_are_named(name: str) -> None:
    assert name in read_lock(packaged_lock())


def test_what_a_weight_needs_is_locked_with_it() -> None:
    lock = read_lock(packaged_lock())
    for known in lock.values():
        for need in known.needs:
            name, _, part = need.partition("/")
            files = lock[name].files
            if part and lock[name].listed:
                assert any(path == part or path.startswith(part + "/") for path in files), need


# Their hashes are published, the commits that hold them are not: a first pull learns those from the branch.
WITHOUT_REVISION = {
    "ByteDance/Hyper-SD": 2,
    "Iceclear/StableSR": 8,
    "Joypop/GDPO": 1,
    "Lykon/DreamShaper": 1,
    "SG161222/Realistic_Vision_V5.1_noVAE": 1,
    "gsdf/Counterfeit-V2.5": 1,
}


def test_no_further_entry_has_a_hash_and_no_revision() -> None:
    entries = [entry for entry in read_lock(packaged_lock()).values() if entry.repo and not entry.revision]
    hashed = [entry for entry in entries if any(file.sha256 for file in entry.files.values())]
    assert Counter(entry.repo for entry in hashed) == WITHOUT_REVISION
    assert {entry.branch for entry in hashed} == {"main"}
