"""How far a picture is: one share over passes, blocks, stages, steps and tiles, which only grows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from srcli.batch.progress import FILLED, PictureProgress
from srcli.cli.console import NoResults, PlainListener

Event = tuple[str, int, int]


def told(*, passes: int, blocks: int, steps: int, tiles: int) -> Iterator[Event]:
    """What the pipeline tells of a picture."""
    for index in range(passes):
        if passes > 1:
            yield "pass", index, passes
        for block in range(blocks):
            yield "preparing", block, blocks
            if steps:
                yield "sampling", block * steps, blocks * steps
            for step in range(steps):
                yield from (("tiles", tile, tiles) for tile in range(1, tiles))
                yield "sampling", block * steps + step + 1, blocks * steps
            yield "finishing", block, blocks


def shares(**sizes: int) -> list[float]:
    picture, found = PictureProgress("a.png"), []
    for event in told(**sizes):
        picture.update(*event)
        found.append(picture.share)
    return found


def test_it_only_grows_and_does_not_end_early() -> None:
    for passes in (1, 2, 3):
        for blocks, tiles in ((1, 5), (4, 1)):
            for steps in (0, 3):
                found = shares(passes=passes, blocks=blocks, steps=steps, tiles=tiles)
                assert found == sorted(found)
                assert found[-1] < 1


def test_a_second_pass_is_most_of_the_work() -> None:
    found = shares(passes=2, blocks=1, steps=4, tiles=1)
    first, second = found[: len(found) // 2], found[len(found) // 2 :]
    assert max(first) < 1 / 17 <= second[-1] / 2


def test_all_versions_of_a_map_move_it() -> None:
    picture, ends, found = PictureProgress("a.png"), [], []
    for version in range(3):
        picture.update("version", version, 3)
        for event in told(passes=2, blocks=2, steps=3, tiles=4):
            picture.update(*event)
            found.append(picture.share)
        ends.append(picture.share)
    assert found == sorted(found)
    assert ends == pytest.approx([1 / 3, 2 / 3, 1], abs=0.05)
    assert picture.describe() == "a.png mapping version 2/2 1/2"


def test_tiles_move_a_step() -> None:
    found = shares(passes=1, blocks=1, steps=2, tiles=5)
    assert len(set(found[1:-1])) == len(found) - 2  # the first and the last step begin and end with the stage


def test_filling_damage_is_the_first_part_of_the_work() -> None:
    picture, found = PictureProgress("a.png"), []
    for event in (*(("filling", done, 4) for done in range(5)), *told(passes=2, blocks=2, steps=3, tiles=1)):
        picture.update(*event)
        found.append(picture.share)
        if event == ("filling", 3, 4):
            assert picture.describe() == "a.png filling 3/4"
    assert found[:5] == pytest.approx([0, FILLED / 4, FILLED / 2, 3 * FILLED / 4, FILLED])
    assert found == sorted(found)
    assert FILLED < found[-2] <= found[-1] < 1


def test_no_line_is_about_loading(capsys: pytest.CaptureFixture[str]) -> None:
    listener = PlainListener(NoResults(), quiet=False, verbose=False)
    listener.planned(1, 0)
    listener.begun(Path("a.png"), (8, 8), (64, 64))
    for event in (("loading", 0, 1), ("pass", 0, 2), ("preparing", 0, 1)):
        listener.step(Path("a.png"), *event)
    assert capsys.readouterr().err == "0%, a.png 8x8 to 64x64 preparing\n"


def test_the_time_left_runs_down_while_a_stage_tells_nothing() -> None:
    picture = PictureProgress("a.png")
    picture.began -= 10
    picture.update("preparing", 0, 4)
    picture.update("preparing", 2, 4)
    assert picture.left() == pytest.approx(10, abs=0.5)
    for passed, left in ((4, 6), (3, 3)):
        picture.began, picture._moved = picture.began - passed, picture._moved - passed
        assert picture.left() == pytest.approx(left, abs=0.5)
    picture.began, picture._moved = picture.began - 9, picture._moved - 9
    assert picture.left() is None
