"""Which sample a place of a batch gets, whoever makes it; what is held out; what a step is estimated to take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests import tiny_bases

from srcli.degrade.presets import PASD
from srcli.errors import InputError
from srcli.models.sr3_unet import SR3Shape, SR3UNet
from srcli.train.estimate import estimate_step
from srcli.train.pairs import DegradedPairs, EnlargedPairs, GrayPairs
from srcli.train.pictures import PictureFile, survey_pictures
from srcli.train.plan import COSINE, Schedule
from srcli.train.running import hold_out
from srcli.train.systems.base import OptimizerSettings, Phase, SampleNoise
from srcli.train.systems.sr3_step import SR3Inputs, SR3Step
from srcli.train.training_set import Share, TrainingSet


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bases.photographs(tmp_path_factory.mktemp("data") / "data", 3, 80)


def source(data: Path, share: Share, seed: int = 1) -> TrainingSet:
    return TrainingSet(survey_pictures(data).usable, DegradedPairs(64, PASD), share, seed)


def test_two_processes_share_the_batch_of_one(data: Path) -> None:
    whole = source(data, Share(2))[5]
    for rank in range(2):
        part = source(data, Share(1, rank, 2))[5]
        assert torch.equal(part.target[0], whole.target[rank])
        assert torch.equal(part.degraded[0], whole.degraded[rank])
        noise = SampleNoise(1, 5, part.places).normals((2, 2))
        assert torch.equal(noise[0], SampleNoise(1, 5, whole.places).normals((2, 2))[rank])
    assert not torch.equal(source(data, Share(2), 2)[5].degraded, whole.degraded)


def test_every_picture_has_its_turn(data: Path) -> None:
    made = source(data, Share(1))
    assert {made[micro].names[0] for micro in range(3)} == {"00.png", "01.png", "02.png"}


def test_a_picture_that_cannot_be_read_is_named_and_replaced(tmp_path: Path) -> None:
    folder = tiny_bases.photographs(tmp_path / "data", 2, 80)
    made = source(folder, Share(2))
    whole = (folder / "01.png").read_bytes()
    (folder / "01.png").write_bytes(whole[: len(whole) // 2])
    batch = made[0]
    assert batch.names == ("00.png", "00.png")
    assert "01.png" in batch.problems[0]
    (folder / "00.png").unlink()
    with pytest.raises(InputError, match="in a row"):
        made[1]


def test_captions_are_left_out_as_often_as_wished(data: Path, tmp_path: Path) -> None:
    folder = tiny_bases.photographs(tmp_path / "data", 1, 64)
    (folder / "00.txt").write_text(" a  cat\n")
    files = survey_pictures(folder).usable
    for drop, kept in ((0.0, "a cat"), (1.0, "")):
        assert TrainingSet(files, EnlargedPairs(32, 4), Share(1), 1, drop)[0].captions == (kept,)


def test_pairs_have_the_side_they_should(data: Path) -> None:
    picture = torch.rand(1, 3, 50, 90)
    from srcli.degrade.draws import SeededDraws

    for pairs in (DegradedPairs(64, PASD), GrayPairs(64), EnlargedPairs(64, 8)):
        pair = pairs(picture, SeededDraws.of(1))
        assert pair.target.shape == pair.degraded.shape == (1, 3, 64, 64)
        assert pair.target.is_contiguous()
    grey = GrayPairs(64)(picture, SeededDraws.of(1)).degraded
    assert torch.equal(grey[:, 0], grey[:, 1])


def test_held_out_pictures_depend_on_their_names_alone() -> None:
    files = [PictureFile(Path(f"{index}.png"), 9, 9) for index in range(40)]
    learned, kept = hold_out(files, 4)
    assert len(kept) == 4 and not set(kept) & set(learned) and len(learned) == 36
    assert hold_out(files[::-1], 4)[1] == kept
    learned, kept = hold_out(files[:5], 4)
    assert len(learned) == 5 and len(kept) == 4


def test_rates() -> None:
    assert [Schedule(warm_up=3).rate(step, 9) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert Schedule(kind=COSINE).rate(5, 10) == pytest.approx(0.5)


def test_an_estimate_counts_what_a_real_step_keeps() -> None:
    shape = SR3Shape(inner_channel=16, norm_groups=8, multiplier=(1, 2), res_blocks=1, attention=(False, False))
    step = SR3Step(SR3UNet(shape))
    picture = torch.rand(2, 3, 32, 32)
    inputs = SR3Inputs(picture, picture, picture, torch.full((2, 1), 0.5), torch.full((2, 1), 0.5))
    found = estimate_step([Phase("sr3", step, OptimizerSettings())], inputs)
    kept: dict[int, int] = {}
    own = {p.data_ptr() for p in step.parameters()}
    held = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step(inputs)
    assert found.kept == pytest.approx(sum(kept.values()), rel=0.15)
    assert found.trained == sum(p.numel() for p in step.parameters())
    assert found.flop > 0 and all(not p.is_meta and p.grad is None for p in step.parameters())
