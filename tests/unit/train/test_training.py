"""Whole trainings of tiny models through the command line: they learn, resume bit for bit, and refuse bad input."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests import tiny_bases
from tests.unit.train.kills import run_kills
from tests.unit.train.runs import SYSTEMS, Home, estimating_once, read_weights, same_weights
from typer.testing import CliRunner

from srcli.cli import app, train_systems
from srcli.degrade.draws import SeededDraws
from srcli.engines.pasd.weights import open_pasd
from srcli.settings import MAX_SEED, ModelChoice
from srcli.train import checkpoints
from srcli.train.systems.base import SampleNoise
from srcli.train.systems.sr3_step import SR3Step
from srcli.weights.store import Store

MACHINE, USAGE, WEIGHTS = 5, 2, 4
CFW_WITHOUT_WEIGHTS = ["train", "cfw", "--out", "run", "--steps", "1", "--offline", "--base-model", "./nowhere"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with estimating_once():
        yield Home(tmp_path_factory.mktemp("training"))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_killed_at_any_moment_ends_in_the_same_weights(home: Home, tmp_path: Path, system: str) -> None:
    """`python -m tests.unit.train.kills` kills more often."""
    run_kills(home, system, tmp_path, kills=2)
    whole = tmp_path / "whole"
    card = (whole / "adapter" / "README.md").read_text()
    assert system in card and "Licence" in card
    lines = tiny_bases.read_log(whole)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 6]
    assert 0 < lines[-1]["validation.psnr"] < 60
    with Image.open(whole / "validation" / "step-000000006.png") as sheet:
        assert sheet.width > 3 * 32


def draw_the_same(noise: SampleNoise) -> None:
    noise._draws = [SeededDraws.of(noise.seed, place) for place in noise.places]


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_loss_falls(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    """One picture and the same draws at every step: other timesteps differ by more than eight steps can teach."""
    monkeypatch.setattr(SampleNoise, "__post_init__", draw_the_same)
    data = None if system == "cfw" else home.single
    assert home.train(system, tmp_path / "run", 8, "--lr", "2e-3", data=data).exit_code == 0
    term = "generator.reconstruction" if system == "cfw" else "loss"
    losses = [line[term] for line in tiny_bases.read_log(tmp_path / "run") if term in line]
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])


def test_a_signal_saves_and_ends(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = train_systems._print_progress

    def progress(step: int, *rest: object) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        told(step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(train_systems, "_print_progress", progress)
    stopped = home.train("sr3", tmp_path / "run", 5)
    assert stopped.exit_code == 128 + signal.SIGTERM
    assert "SIGTERM after step 2" in stopped.stderr
    monkeypatch.undo()
    assert home.train("sr3", tmp_path / "run", 3).exit_code == 0
    assert home.train("sr3", tmp_path / "whole", 3).exit_code == 0
    assert same_weights(tmp_path / "run", tmp_path / "whole")


def test_nan_stops_and_names_the_pictures(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = SR3Step.forward
    seen = []

    def poisoned(self: SR3Step, inputs: object) -> dict[str, torch.Tensor]:
        terms = forward(self, inputs)  # type: ignore[arg-type]
        if not terms["loss"].is_meta:  # as of the estimate before the run
            seen.append(1)
        return {name: value * float("nan") if len(seen) > 2 else value for name, value in terms.items()}

    monkeypatch.setattr(SR3Step, "forward", poisoned)
    failed = home.train("sr3", tmp_path / "run", 5, "--save-every", "1")
    assert failed.exit_code == MACHINE
    assert "step 3 gave NaN" in failed.stderr and ".png" in failed.stderr
    monkeypatch.undo()
    assert "resuming from step 2" in home.train("sr3", tmp_path / "run", 3).stderr


def test_the_largest_seed_trains(home: Home, tmp_path: Path) -> None:
    done = home.train("sr3", tmp_path / "run", 1, "--seed", str(MAX_SEED))
    assert done.exit_code == 0, done.output


def test_no_space_loses_nothing(home: Home, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert home.train("sr3", run, 1).exit_code == 0
    before = read_weights(run)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
        failed = home.train("sr3", run, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert failed.exit_code == MACHINE, failed.output
    assert "cannot be written" in failed.stderr
    after = read_weights(run)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]
    assert home.train("sr3", run, 2).exit_code == 0


def test_a_broken_checkpoint_is_passed_over(home: Home, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert home.train("sr3", run, 2, "--save-every", "1").exit_code == 0
    newest = max((run / "checkpoints").iterdir())
    (newest / checkpoints.WEIGHTS_PART).write_bytes(b"cut off")
    again = home.train("sr3", run, 2, "--save-every", "1")
    assert again.exit_code == 0, again.output
    assert "cannot be read" in again.stderr and "resuming from step 1" in again.stderr


def test_a_result_is_an_adapter(home: Home, tmp_path: Path) -> None:
    """Every tensor finds its place in the engine, and has the trained value."""
    assert home.train("pasd", tmp_path / "run", 1).exit_code == 0
    choice = ModelChoice(engine="pasd", adapter=str(tmp_path / "run" / "adapter"), base=str(home.sd15))
    loaded = open_pasd(choice, Store(offline=True))
    trained = read_weights(tmp_path / "run")
    for part, net in (("control", loaded.control), ("paca", loaded.paca)):
        for name, value in net.state_dict().items():
            assert torch.equal(value, trained[f"pasd.{part}.{name}"]), name


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_result_makes_pictures(home: Home, tmp_path: Path, system: str) -> None:
    """As it was written, by the command that a user would give."""
    assert home.train(system, tmp_path / "run", 1).exit_code == 0
    adapter = tmp_path / "run" / "adapter"
    if system == "cfw":  # goes beside the StableSR that it was trained for
        shutil.copytree(home.stablesr, tmp_path / "both")
        adapter = Path(shutil.copytree(adapter, tmp_path / "both", dirs_exist_ok=True))
    stablesr = ["--engine", "stablesr", "--base-model", str(home.sd21), "--steps", "2", "--process-size", "128"]
    words = {
        "pasd": ["--engine", "pasd", "--base-model", str(home.sd15), "--steps", "1", "--process-size", "64"],
        "stablesr": [*stablesr, "--fidelity", "0"],
        "cfw": [*stablesr, "--fidelity", "0.5"],
        "sr3": ["--engine", "sr3", "--steps", "2"],
    }[system]
    Image.effect_noise((16, 16), 60).save(tmp_path / "small.png")
    common = ["--adapter", str(adapter), "--offline", "--device", "cpu", "-o", str(tmp_path / "large.png")]
    done = CliRunner().invoke(app, ["upscale", str(tmp_path / "small.png"), *words, *common])
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "large.png") as large:
        assert large.size == (64, 64)


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def small(folder: Path) -> Path:
    return tiny_bases.photographs(folder, 2, 24)


def with_caption(folder: Path) -> Path:
    tiny_bases.photographs(folder, 2, 64)
    (folder / "01.txt").write_bytes(b"caf\xe9")
    return folder


def broken(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return folder


@pytest.mark.parametrize(
    ("make", "system", "said"),
    [
        (empty, "sr3", "holds no pictures"),
        (small, "sr3", "smaller than 32 pixels"),
        (with_caption, "pasd", "01.txt is not UTF-8"),
        (broken, "sr3", "a.png"),
        (lambda folder: folder, "sr3", "no such folder"),
    ],
)
def test_bad_data_is_one_line(home: Home, tmp_path: Path, make: Callable[[Path], Path], system: str, said: str) -> None:
    failed = home.train(system, tmp_path / "run", 1, data=make(tmp_path / "data"))
    assert failed.exit_code == USAGE, failed.output
    assert said in failed.stderr.splitlines()[-1]


def test_missing_data_are_told_before_weights_are_asked_for(home: Home, tmp_path: Path) -> None:
    failed = home.train("pasd", tmp_path / "run", 1, "--base-model", "./nowhere", data=tmp_path / "none")
    assert failed.exit_code == USAGE and "no such folder" in failed.stderr, failed.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "none"], "no such folder none: give --data"),
        ([], "--data is missing"),
        (["--pairs", "0"], "holds no pairs"),
    ],
)
def test_cfw_tells_what_its_pairs_lack_before_weights_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = CliRunner().invoke(app, [*CFW_WITHOUT_WEIGHTS, *words])
    assert failed.exit_code == USAGE and said in failed.stderr, failed.output


def test_cfw_needs_no_pictures_once_its_pairs_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("targets/0000000.png", "inputs/0000000.png", "latents/0000000.safetensors"):
        (tmp_path / "run-cache" / name).parent.mkdir(parents=True)
        (tmp_path / "run-cache" / name).touch()
    failed = CliRunner().invoke(app, [*CFW_WITHOUT_WEIGHTS, "--pairs", "1"])
    assert failed.exit_code == WEIGHTS and "nowhere" in failed.stderr, failed.output


def test_settings_that_cannot_be(home: Home, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert home.train("sr3", run, 1).exit_code == 0
    for more, code, said in (
        (["--lr", "0.5"], USAGE, "lr was 0.0001 and is 0.5"),
        (["--seed", "9"], USAGE, "seed was 1 and is 9"),
        (["--batch", "1"], USAGE, "batch was 2 and is 1"),
        (["--schedule", "square"], USAGE, "--schedule"),
        (["--dtype", "int8"], USAGE, "--dtype"),
        (["--device", "tpu"], USAGE, "--device"),
        (["--optimizer-bits", "4"], USAGE, "--optimizer-bits"),
        (["--optimizer-bits", "8"], MACHINE, "bitsandbytes"),
        (["--size", "3-4"], USAGE, "--size"),
    ):
        failed = home.train("sr3", run, 2, *more)
        assert failed.exit_code == code, (more, failed.output)
        assert said in failed.stderr
    failed = home.train("pasd", run, 2)
    assert failed.exit_code == USAGE and "holds a training of sr3" in failed.stderr


def test_a_folder_with_other_things_is_left_alone(home: Home, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    failed = home.train("sr3", tmp_path, 1)
    assert failed.exit_code == USAGE and "holds other things" in failed.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_run_inside_its_data_is_refused(home: Home) -> None:
    failed = home.train("sr3", home.data / "run", 1)
    assert failed.exit_code == USAGE and "lies inside --data" in failed.stderr


def test_a_base_of_another_family_is_refused(home: Home, tmp_path: Path) -> None:
    base = tiny_bases.sd15_base(tmp_path / "base")
    config = json.loads((base / "unet" / "config.json").read_text())
    state = load_file(base / "unet" / "diffusion_pytorch_model.safetensors")
    of_text = (".attn2.to_k.weight", ".attn2.to_v.weight")
    wide = {n: torch.zeros(len(v), 1024) if n.endswith(of_text) else v for n, v in state.items()}
    tiny_bases.save_file(wide, base / "unet" / "diffusion_pytorch_model.safetensors")
    (base / "unet" / "config.json").write_text(json.dumps({**config, "cross_attention_dim": 1024}))
    failed = home.train("pasd", tmp_path / "run", 1, "--base-model", str(base))
    assert failed.exit_code == WEIGHTS and "sd21" in failed.stderr
