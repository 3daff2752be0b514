"""The file of --map: beside each result, made with it, and in nobody's place."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from srcli.batch.journal.file import JOURNAL_NAME
from srcli.batch.report import Outcome
from srcli.errors import InputError
from srcli.imaging.provenance import read_provenance
from tests.batch.fakes import Repeat, Watcher, draw, factory, go


def test_a_folder_gets_a_map_for_each_result_under_the_result_s_name(tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.png"):
        draw(tmp_path / "in" / name)
    out = tmp_path / "out"
    heard = go(tmp_path / "in", recursive=True, path=f"{out}/", map=f"{out}/")
    assert heard.fate() == {"a.png": "done", "b.png": "done"}
    maps = sorted(path.relative_to(out).as_posix() for path in out.rglob("*_map.png"))
    assert maps == ["a_x2_map.png", "sub/b_x2_map.png"]
    with Image.open(out / "a_x2_map.png") as found:
        assert (found.mode, found.size) == ("L", (24, 16))
    result, made = (read_provenance(out / name) or {} for name in ("a_x2.png", "a_x2_map.png"))
    assert result["map"] == made["map"] and made["is_map"] and "is_map" not in result
    assert made["map"]["versions"] == 4


def test_maps_are_no_inputs_of_the_next_run(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    go(tmp_path, map=f"{tmp_path}/")
    again = go(tmp_path, map=f"{tmp_path}/")
    assert (again.total, again.left_out) == (1, 2)


def run_twice(tmp_path: Path, before: object, **more: object) -> Watcher:
    """Run, do something, and run again."""
    source = draw(tmp_path / "a.png")
    kind = {"path": f"{tmp_path}/out/", "map": f"{tmp_path}/m.png", **more}
    go(source, **kind)
    before(tmp_path)
    return go(source, **kind)


@pytest.mark.parametrize("journal", [True, False])
def test_what_has_both_is_up_to_date_and_what_lost_its_map_is_done_again(tmp_path: Path, journal: bool) -> None:
    assert run_twice(tmp_path, lambda folder: None, journal=journal).fate() == {"a.png": "skipped"}
    (tmp_path / "m.png").unlink()
    again = go(tmp_path / "a.png", path=f"{tmp_path}/out/", map=f"{tmp_path}/m.png", journal=journal)
    assert again.fate() == {"a.png": "done"}
    assert (tmp_path / "m.png").exists() and len(list((tmp_path / "out").glob("*.png"))) == 1


def test_an_own_map_is_replaced_and_a_foreign_file_is_not(tmp_path: Path) -> None:
    def lose_result(folder: Path) -> None:
        (folder / "out" / "a_x2.png").unlink()

    def put_photo(folder: Path) -> None:
        lose_result(folder)
        draw(folder / "m.png", seed=9)

    assert run_twice(tmp_path, lose_result).fate() == {"a.png": "done"}
    other = tmp_path / "other"
    refused = run_twice(other, put_photo)
    assert refused.fate() == {"a.png": "exists"}
    assert (other / "m.png").read_bytes() == draw(tmp_path / "same.png", seed=9).read_bytes()
    assert not (other / "out" / "a_x2.png").exists()
    again = go(other / "a.png", path=f"{other}/out/", map=f"{other}/m.png", on_exists="overwrite")
    assert again.fate() == {"a.png": "done"}


def test_a_picture_that_was_replaced_gets_another_result_and_another_map(tmp_path: Path) -> None:
    folder = f"{tmp_path / 'out'}/"
    for seed in (0, 7):
        draw(tmp_path / "a.png", seed=seed)
        assert go(tmp_path / "a.png", path=folder, map=folder, journal=True).fate() == {"a.png": "done"}
    result, made = (read_provenance(tmp_path / "out" / name) or {} for name in ("a_x2.png", "a_x2_map.png"))
    assert result["input_sha256"] == made["input_sha256"]


def test_the_map_of_another_picture_is_a_foreign_file(tmp_path: Path) -> None:
    one, two = draw(tmp_path / "a.png"), draw(tmp_path / "b.png", seed=1)
    go(one, map=f"{tmp_path}/m.png")
    assert go(two, map=f"{tmp_path}/m.png").fate() == {"b.png": "exists"}


@pytest.mark.parametrize("name", ["a.png", "masks/a.png", "a_x2.png"])
def test_a_map_never_takes_the_place_of_an_input_or_a_result(tmp_path: Path, name: str) -> None:
    source, masks = draw(tmp_path / "a.png"), draw(tmp_path / "masks" / "a.png").parent
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    heard = go(source, map=str(tmp_path / name), mask=str(masks), on_exists="overwrite")
    assert heard.fate() == {"a.png": "exists"} and "would replace" in str(heard.outcomes[0].message)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == before


def test_two_results_of_one_stem_have_two_maps_or_a_failure(tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png")
    draw(tmp_path / "in" / "a.tif", seed=1)
    heard = go(tmp_path / "in", path=f"{tmp_path}/out/", map=f"{tmp_path}/maps/")
    failed: list[Outcome] = [o for o in heard.outcomes if o.status == "failed"]
    assert len(failed) == 1 and "give another --map, or rename one" in str(failed[0].message)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("m.jpg", "neither a folder nor a PNG"),
        ("m.png", "is one file, but there are several inputs"),
        ("-", "standard"),
    ],
)
def test_a_name_that_holds_no_maps_is_refused_before_the_run(tmp_path: Path, name: str, why: str) -> None:
    draw(tmp_path / "a.png")
    with pytest.raises(InputError, match=why):
        go(tmp_path, map=name if name == "-" else str(tmp_path / name))


def test_a_failure_between_the_versions_leaves_neither(tmp_path: Path) -> None:
    seen: list[int] = []

    def fail_second(picture: object) -> None:
        seen.append(1)
        if len(seen) == 2:
            raise RuntimeError("no")

    source = draw(tmp_path / "a.png")
    go(source, map=f"{tmp_path}/m.png", who=factory(pipeline=Repeat(before=fail_second)), journal=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


def test_workers_of_other_processes_make_maps_too(tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    assert go(tmp_path / "in", path=f"{out}/", map=f"{out}/", workers=2).fate() == {"a.png": "done"}
    assert sorted(p.name for p in out.iterdir() if p.name != JOURNAL_NAME) == ["a_x2.png", "a_x2_map.png"]
