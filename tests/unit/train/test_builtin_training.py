"""Training of the built-in network, tiny: damage, pairs, teachers, stages; it learns, resumes, and refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from benchmarks.features import write_features
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from srcli.cli.train import train_app
from srcli.degrade.draws import SeededDraws
from srcli.degrade.jpeg import compress_jpeg
from srcli.engines.builtin.weights import read_model
from srcli.errors import InputError, WeightsError
from srcli.messages import forward_messages
from srcli.models.builtin import UPSCALE_FACTOR, BuiltinShape
from srcli.train.builtin.aging import add_scratches, make_old_print, print_picture
from srcli.train.builtin.bank import BankMaker, make_aged_bank
from srcli.train.builtin.damage import HEAVY_DAMAGE, LIGHT_DAMAGE, damage_pictures, measure_damage, reduce_antialiased
from srcli.train.builtin.features import ConvLayer, FeatureNetwork, feature_distance
from srcli.train.builtin.lettering import draw_patch
from srcli.train.builtin.photos import Photographs, rotate_and_flip
from srcli.train.builtin.session import BuiltinTrainPlan, _open_photos, run_builtin_training
from srcli.train.builtin.teachers import read_teacher
from srcli.train.builtin.trainer import Training, TrainingStage

CPU = torch.device("cpu")
TINY = BuiltinShape(width=8, blocks=1, faithful_blocks=1, crisp_blocks=1, estimator=4)


def make_patch(side: int = 160, seed: int = 0) -> np.ndarray:
    return np.array(draw_patch(side, np.random.default_rng(seed)))


def make_photos() -> Photographs:
    return Photographs.place([make_patch(seed=s) for s in range(3)], [make_patch(seed=9)], CPU)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("photos")
    for index in range(3):
        Image.fromarray(make_patch(seed=index)).save(made / f"{index}.png")
    (made / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    return made


def make_plan(folder, out, **more) -> BuiltinTrainPlan:
    given = {"seconds": 60.0, "device": CPU, "steps": 4, "cells": 16, "batch": 2, "pairs": 4, "shape": TINY}
    return BuiltinTrainPlan(photos=folder, out=out, **(given | more))


@pytest.mark.parametrize("settings", [LIGHT_DAMAGE, HEAVY_DAMAGE])
def test_damage_keeps_a_picture_in_its_place(settings):
    """The damaged picture is nearer to the clean reduction than to one moved by a pixel."""
    sharp = torch.from_numpy(np.stack([make_patch(128, s) for s in range(8)])).permute(0, 3, 1, 2).float() / 255
    clean, near, far = reduce_antialiased(sharp), [], []
    for seed in range(6):
        small = damage_pictures(sharp, settings, SeededDraws.of(seed))
        assert small.shape == (8, 3, 32, 32)
        near.append((small - clean).abs()[..., 4:-4, 4:-4].mean())
        far += [(small - clean.roll(s, axis)).abs()[..., 4:-4, 4:-4].mean() for s in (-1, 1) for axis in (2, 3)]
    assert sum(near) / len(near) < 0.95 * sum(far) / len(far)


def test_draws_follow_from_the_seed():
    sharp = torch.rand(2, 3, 128, 128)
    one, same, other = (damage_pictures(sharp, HEAVY_DAMAGE, SeededDraws.of(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_damage_is_measured_as_what_it_is():
    torch.manual_seed(0)
    sharp = torch.from_numpy(np.stack([make_patch(256, s) for s in range(4)])).permute(0, 3, 1, 2).float() / 255
    clean = reduce_antialiased(sharp)
    assert measure_damage(clean, clean).max() < 0.05
    soft = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(clean, (1, 1, 1, 1), mode="reflect"), 3, 1)
    grey = clean + 0.06 * torch.randn(4, 1, 64, 64)
    coloured = clean + 0.06 * torch.randn(4, 3, 64, 64)
    stored = compress_jpeg(clean, torch.full((4,), 15.0))
    blur, noise, colour, blocks = (measure_damage(x, clean).mean(0) for x in (soft, grey, coloured, stored))
    assert blur[0] > 0.5 and blur[0] > 3 * noise[0]
    assert noise[1] > 0.5 and colour[2] > 5 * noise[2]
    assert blocks[3] > 0.1


def test_aging_keeps_its_place_and_follows_from_the_seed():
    truth = make_patch(128)
    one, same, other = (make_old_print(truth, 2, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one.shape == (64, 64, 3)
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_a_print_is_one_colour_scale():
    """On paper without colours of its own, lighter is lighter in every channel. Seed 2 draws such a print."""
    made = print_picture(make_patch(), np.random.default_rng(2)).reshape(-1, 3).astype(int)
    rising = np.diff(made[np.argsort(made.sum(1), kind="stable")], axis=0)
    assert rising.min() >= -1


def test_scratches_touch_little():
    truth = np.full((128, 128, 3), 128, np.uint8)
    changed = [np.any(add_scratches(truth, np.random.default_rng(s)) != truth, axis=2).mean() for s in range(30)]
    assert 0 < np.mean(changed) < 0.35


def test_without_teachers_the_truth_is_the_answer():
    bank = BankMaker(make_photos(), None, None, 16, torch.bfloat16).make(4, SeededDraws.of(1))
    assert bank.damaged.shape == (4, 3, 16, 16) and bank.sharp.shape == (4, 3, 64, 64)
    assert torch.equal(bank.sharp, bank.answers)


def test_an_aged_bank_has_the_truth_for_an_answer():
    truth = np.stack([make_patch(64, s) for s in range(2)])
    small = np.stack([make_old_print(p, 2, np.random.default_rng(0)) for p in truth])
    bank = make_aged_bank([(small, truth)], 2, CPU)
    assert len(bank) == 2 and bank.damaged.shape[-1] == 32
    assert bool((bank.damage >= 0).all())


@pytest.mark.parametrize("number", range(8))
def test_turns_move_small_and_sharp_alike(number):
    sharp = torch.rand(1, 3, 8, 8)
    small, large = rotate_and_flip(number, torch.nn.functional.avg_pool2d(sharp, 2), sharp)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(large, 2), small)


def write_convolutions(path, layers: list[tuple[int, int, int]], slopes: bool) -> None:
    tensors, number = {}, 0
    for index, (inputs, outputs, side) in enumerate(layers):
        tensors[f"{number:03d}.conv.weight"] = torch.randn(outputs, inputs, side, side) * 0.05
        tensors[f"{number:03d}.conv.bias"] = torch.zeros(outputs)
        number += 1
        if slopes and index < len(layers) - 1:
            tensors[f"{number:03d}.prelu.weight"] = torch.full((outputs,), 0.2)
            number += 1
    save_file(tensors, path)


def teacher_layers(kind: str) -> list[tuple[int, int, int]]:
    w = 4
    if kind == "general":
        return [(3, w, 3), (w, w, 3), (w, 48, 3)]
    if kind == "span":
        return [(3, w, 3), *[(w, w, 3)] * 6, (w, w, 3), (4 * w, w, 1), (w, 48, 3)]
    dense = [(w + 2 * i, 2 if i < 4 else w, 3) for i in range(5)]
    return [(3, w, 3), *dense * 3, (w, w, 3), (w, w, 3), (w, w, 3), (w, w, 3), (w, 3, 3)]


@pytest.mark.parametrize("kind", ["general", "dense", "span"])
def test_every_kind_of_teacher_answers_four_times_as_large(kind, tmp_path):
    write_convolutions(tmp_path / "t.safetensors", teacher_layers(kind), slopes=kind == "general")
    teacher = read_teacher(kind, tmp_path / "t.safetensors", CPU, torch.float32)
    assert teacher(torch.rand(2, 3, 9, 7)).shape == (2, 3, 36, 28)


def write_feature_network(path) -> None:
    tensors = {"000.weight": torch.randn(4, 3, 3, 3) * 0.3, "001.weight": torch.randn(4, 1, 5, 5) * 0.3}
    tensors |= {"000.bias": torch.zeros(4), "001.bias": torch.zeros(4)}
    write_features(path, tensors, [ConvLayer(stride=2, tap=True), ConvLayer(grouped=True, tap=True)])


def test_feature_distance_grows_with_damage(tmp_path):
    write_feature_network(tmp_path / "features.safetensors")
    network, truth = FeatureNetwork(tmp_path / "features.safetensors"), torch.rand(1, 3, 32, 32)
    same, near, far = (
        feature_distance(network, (truth + s * torch.randn_like(truth)).clamp(0, 1), truth) for s in (0, 0.05, 0.3)
    )
    assert same < 1e-3 < near < far


def test_every_loss_falls_on_one_bank(tmp_path):
    write_feature_network(tmp_path / "features.safetensors")
    torch.manual_seed(0)
    bank = BankMaker(make_photos(), None, None, 16, torch.bfloat16).fill(4, 8, 60, SeededDraws.of(1))
    from srcli.models.builtin import Builtin

    training = Training(Builtin(TINY), FeatureNetwork(tmp_path / "features.safetensors"), CPU, 1)
    seen = []
    stage = TrainingStage(
        name="all", seconds=0, steps=51, rate=3e-3, batch=4, features=1, critic=0.3, truth=0.5, warmup=5, average=0.9
    )
    training.run(stage, bank, lambda: seen.append(dict(training.losses)))
    first, last = seen[0], seen[-1]
    assert last["faithful"] < first["faithful"]
    assert {"pixel", "features", "critic", "critic's own"} <= last.keys()
    untouched = {k: v.clone() for k, v in training.model.state_dict().items()}
    only = TrainingStage(name="crisp", seconds=0, steps=3, rate=1e-3, batch=4, crisp_only=True)
    training.run(only, bank, lambda: None)
    changed = {k.split(".")[0] for k, v in training.model.state_dict().items() if not torch.equal(v, untouched[k])}
    assert changed == {"crisp"}


def test_a_killed_training_ends_in_the_weights_of_an_unbroken_one(folder, tmp_path):
    whole = run_builtin_training(make_plan(folder, tmp_path / "whole"), False)

    class Killed(BaseException):
        pass

    def kill_in_the_second_stage(text: str) -> None:
        if '"stage": "sharpen"' in text:
            raise Killed

    forward_messages(kill_in_the_second_stage)
    try:
        with pytest.raises(Killed):
            run_builtin_training(make_plan(folder, tmp_path / "killed"), False)
    finally:
        forward_messages(None)
    resumed = run_builtin_training(make_plan(folder, tmp_path / "killed"), True)
    one, other = read_model(whole).state_dict(), read_model(resumed).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_restoration_begins_with_an_enlarger(folder, tmp_path):
    up = run_builtin_training(make_plan(folder, tmp_path / "up"), False)
    down = run_builtin_training(make_plan(folder, tmp_path / "r", task="restore", start=up), False)
    assert read_model(down).shape.scale == UPSCALE_FACTOR // 2


def test_the_command_trains_and_prints_the_model(folder, tmp_path):
    words = ["builtin", "--data", str(folder), "--out", str(tmp_path / "o"), "--budget", "30s", "--steps", "1"]
    done = CliRunner().invoke(train_app, [*words, "--patch", "16", "--batch", "1", "--pairs", "1", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip().endswith("builtin-upscale.safetensors")
    assert "broken.jpg" in done.stderr
    lines = [json.loads(line) for line in (tmp_path / "o" / "losses.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["learn", "sharpen", "crisp"]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"task": "paint"}, InputError, "--task 'paint' is unknown"),
        ({"teachers": "nowhere"}, WeightsError, "features.safetensors"),
    ],
)
def test_a_bad_plan_is_one_line(folder, tmp_path, change, error, words):
    change = change | ({"teachers": tmp_path / "nowhere"} if "teachers" in change else {})
    with pytest.raises(error, match=words):
        run_builtin_training(make_plan(folder, tmp_path / "o", **change), False)


def test_a_missing_folder_of_photographs_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        run_builtin_training(make_plan(tmp_path / "nowhere", tmp_path / "o"), False)
    assert not (tmp_path / "o").exists()


def test_a_wrong_start_is_told_before_pairs_are_made(folder, tmp_path, said):
    with pytest.raises(WeightsError, match="no such file"):
        run_builtin_training(make_plan(folder, tmp_path / "o", start=tmp_path / "none"), False)
    assert not any("pairs" in line for line in said)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("seed", ["-1", str(2**63)])
@pytest.mark.parametrize("name", ["builtin", "preview", "sr3 --steps 1"])
def test_a_seed_has_bounds(folder, tmp_path, name, seed):
    words = [*name.split(), "--data", str(folder), "--out", str(tmp_path / "o.png"), "--seed", seed]
    done = CliRunner().invoke(train_app, words)
    assert done.exit_code == 2 and "--seed" in done.stderr
    assert not (tmp_path / "o.png").exists()


def test_photographs_that_are_all_too_small_leave_nothing_behind(folder, tmp_path):
    with pytest.raises(InputError, match="smaller than"):
        run_builtin_training(make_plan(folder, tmp_path / "o", cells=400), False)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("jobs", [0, 1])
def test_pictures_whose_header_alone_is_whole_are_told_in_one_line(tmp_path, jobs, said):
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(make_patch()).save(tmp_path / name)
    files, plan = sorted(tmp_path.iterdir()), make_plan(tmp_path, tmp_path / "o", jobs=jobs)
    for count, file in enumerate(files[:2], 1):
        file.write_bytes(file.read_bytes()[:2000])
        assert len(_open_photos(plan, files)) == 3 - count
    assert [line.partition(", such as: ")[0] for line in said] == [
        "left out: 1 of 3 pictures that cannot be read",
        "left out: 2 of 3 pictures that cannot be read",
    ]
    assert "a.png" in said[0]
    with pytest.raises(InputError, match=r"none of 2 pictures in .* can be read, such as: .*a\.png"):
        _open_photos(plan, files[:2])


def test_a_folder_with_a_training_is_continued_only_on_demand(folder, tmp_path):
    plan = make_plan(folder, tmp_path / "o", steps=1)
    with pytest.raises(InputError, match="no training to resume"):
        run_builtin_training(plan, True)
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / ".srcli-journal.jsonl").write_text("an album's\n")
    run_builtin_training(plan, False)
    with pytest.raises(InputError, match="add --resume"):
        run_builtin_training(plan, False)
    assert (tmp_path / "o" / ".srcli-journal.jsonl").read_text() == "an album's\n"


def test_a_budget_is_a_length_of_time(folder, tmp_path):
    done = CliRunner().invoke(train_app, ["builtin", "--data", str(folder), "--out", str(tmp_path), "--budget", "soon"])
    assert isinstance(done.exception, InputError)
