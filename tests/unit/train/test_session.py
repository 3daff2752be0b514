"""A tiny training from start to end: it learns, it resumes to the same state, and bad input is one line."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from srcli.cli.train import app
from srcli.engines.builtin import weights as builtin_file
from srcli.errors import InputError, MachineError, SrcliError
from srcli.models.builtin import Builtin, Shape
from srcli.train import data, loops, session
from srcli.train.degradations import degrade
from srcli.train.loops import Budget, Recipe, Run, train
from srcli.train.losses import Distil
from srcli.train.session import Plan
from srcli.train.share import Peer
from srcli.train.synthetic import drawn

TINY = Shape(width=8, wide=8, before=1, deep=1, after=1, detail=(8, 8, 8), edge=4)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for index in range(3):
        Image.fromarray(drawn(96, np.random.default_rng(index))).save(folder / f"{index}.png")
    return folder


def plan(photos: Path, out: Path, **more) -> Plan:
    return Plan(**{"photos": photos, "out": out, "steps": 12, "cells": 8, "batch": 2, "shape": TINY, **more})


def pairs(photos: Path, **more) -> data.Pairs:
    options = {"degrade": degrade, "cells": 8, "up": 4, "scale": 4, "batch": 4, "seed": 1, **more}
    return data.Pairs(data.photographs(data.find(photos), 64), **options)


def run(stage: str) -> Run:
    torch.manual_seed(0)
    return Run.begin(Recipe(stage=stage, shape=TINY, cells=8, batch=4, lr=5e-3), Builtin(TINY))


@pytest.mark.parametrize("stage", ["predict", "edges", "detail", "distil"])
def test_loss_falls_on_one_batch(photos, stage):
    batch = pairs(photos)[0]
    learner = run(stage)
    losses = []
    for _ in range(25):
        learner.step = 0  # the same noise every time
        learner.loss = float("nan")
        learner.advance(*batch, 1.0)
        losses.append(learner.loss)
    assert losses[-1] < 0.93 * losses[0]


@pytest.mark.parametrize("stage", ["predict", "detail", "distil"])
def test_kill_and_resume_give_the_same_state(photos, tmp_path, stage):
    budget = Budget(steps=6, warm=2)
    whole = run(stage)
    list(train(whole, pairs(photos), budget))
    first = run(stage)
    for state in train(first, pairs(photos), budget):
        if state.step == 3:
            break
    loops.save(first.state(), tmp_path / "x.pt")
    second = run(stage)
    second.restore(loops.load(tmp_path / "x.pt"))
    list(train(second, pairs(photos), budget))
    for name, value in whole.part.state_dict().items():
        assert torch.equal(value, second.part.state_dict()[name]), name
        assert torch.equal(whole.average[name], second.average[name]), name


def test_a_student_starts_as_its_teacher(photos):
    """Against one step of the teacher nothing is left to learn; against four there is."""
    learner = run("distil")
    batch, dice = pairs(photos)[0], torch.Generator()
    one, four = (Distil(learner.model.detail, parts)(learner.model, *batch, dice.manual_seed(3)) for parts in (1, 4))
    assert float(one.detach()) < 1e-4 * float(four.detach())


@pytest.mark.parametrize("task", ["upscale", "restore"])
def test_a_session_leaves_a_model_metrics_and_a_sheet(photos, tmp_path, task):
    made = session.train(plan(photos, tmp_path, task=task), False, lambda text: None)
    model = builtin_file.read(made)
    assert model.shape.scale == (4 if task == "upscale" else 2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["predict", "edges", "detail", "distil"]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 5 * 90


def test_a_session_resumes_and_refuses_other_settings(photos, tmp_path):
    session.train(plan(photos, tmp_path), False, lambda text: None)
    with pytest.raises(InputError, match="already holds a training"):
        session.train(plan(photos, tmp_path), False, lambda text: None)
    with pytest.raises(InputError, match="made with batch 2"):
        session.train(plan(photos, tmp_path, batch=3), True, lambda text: None)
    before = builtin_file.read(tmp_path / "builtin-upscale.safetensors").state_dict()
    half, journal = tmp_path / ".srcli-0123abcd", tmp_path / ".srcli-journal.jsonl"
    half.write_bytes(b"of a killed training")
    journal.write_bytes(b"of a batch")
    session.train(plan(photos, tmp_path), True, lambda text: None)
    assert not half.exists()
    assert journal.read_bytes() == b"of a batch"
    after = builtin_file.read(tmp_path / "builtin-upscale.safetensors").state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_restorer_begins_as_the_upscaler_of_the_halved_picture(photos, tmp_path):
    model = Builtin(TINY)
    folded = builtin_file.refolded(model, 2)
    picture = torch.rand(1, 3, 8, 8).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(folded.predictor(picture).features, model.predictor(picture[..., ::2, ::2]).features)
    builtin_file.write(tmp_path / "x.safetensors", TINY, model.state_dict(), "upscale")
    started = plan(photos, tmp_path / "out", task="restore", start=tmp_path / "x.safetensors", shape=Shape())
    made = session.train(started, False, lambda text: None)
    assert builtin_file.read(made).shape == replace(TINY, fold=2)


def _nothing(folder: Path) -> None:
    pass


def _text(folder: Path) -> None:
    (folder / "a.jpg").write_text("not a picture")


def _small(folder: Path) -> None:
    Image.new("RGB", (40, 500)).save(folder / "a.png")


@pytest.mark.parametrize(
    ("fill", "says"), [(_nothing, "no pictures in"), (_text, "can be read"), (_small, "64 pixels each way")]
)
def test_useless_folders_are_one_line(tmp_path, fill, says):
    fill(tmp_path)
    with pytest.raises(InputError, match=says) as error:
        session.train(plan(tmp_path, tmp_path / "out"), False, lambda text: None)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_nothing_to_resume_is_said(photos, tmp_path):
    result = CliRunner().invoke(app, ["builtin", "--data", str(photos), "--out", str(tmp_path), "--resume"])
    assert isinstance(result.exception, SrcliError)
    assert "no training to resume" in str(result.exception)


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    loops.save({"step": 1}, path)

    def full(state, target):
        target.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(MachineError, match="No space left"):
        loops.save({"step": 2}, path)
    assert loops.load(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_foreign_checkpoint_is_refused(tmp_path):
    (tmp_path / "predict.pt").write_bytes(b"something else")
    with pytest.raises(InputError, match="not a checkpoint"):
        loops.load(tmp_path / "predict.pt")


def test_peers_meet_half_way(tmp_path):
    one, other = run("predict"), run("predict")
    for value in other.part.state_dict().values():
        value.add_(1)
    wanted = one.part.head.bias + 0.5
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
    left, right = Peer(*folders), Peer(*reversed(folders))
    assert not right.exchange(other)
    assert left.exchange(one)
    assert not left.exchange(one)
    torch.testing.assert_close(one.part.head.bias, wanted)


def test_the_held_out_tenth_is_told_by_name_alone():
    names = [Path(f"/anywhere/{i}.jpg") for i in range(2000)]
    share = sum(map(data.held_out, names)) / len(names)
    assert 0.07 < share < 0.13
    assert all(data.held_out(Path("x") / n.name) == data.held_out(n) for n in names[:50])


def test_checkpoints_open_without_pickle_trust(tmp_path):
    buffer = io.BytesIO()
    torch.save(run("edges").state(), buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True)["recipe"]["stage"] == "edges"
