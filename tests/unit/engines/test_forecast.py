"""What --explain says of a run before it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from tests.golden.cases import HERE
from typer.testing import CliRunner

from srcli.cli import app
from srcli.engines.choose import choose_engine
from srcli.engines.forecast import forecast_run
from srcli.engines.latent.codec import VALUES_PER_PIXEL
from srcli.engines.latent.forecast import LATENT_CANVAS_BYTES
from srcli.engines.pasd.forecast import count_pasd_flop
from srcli.engines.runtime.device import Device
from srcli.errors import MachineError, WeightsError
from srcli.settings import DeviceChoice, ModelChoice, Sampling, TargetSize
from srcli.tasks import COLORIZE, UPSCALE, Job
from srcli.weights.store import Store

CPU = Device(torch.device("cpu"), torch.float32)
PASD = ModelChoice(engine="pasd")


def plan(size=(512, 512), choice=PASD, device=CPU, task=UPSCALE, scale=None, **sampling):
    return forecast_run(
        choice, Job(task=task, size=TargetSize(scale=scale), sampling=Sampling(**sampling)), size, device
    )


def test_pasd_at_2048_is_the_work_that_the_layouts_are_compared_by():
    found = plan()
    assert (found.result, found.tiles, found.tile) == ((2048, 2048), 25, (64, 64))
    assert found.flop == pytest.approx(40 * 25 * count_pasd_flop(4096), rel=0.1)


def test_guidance_on_half_of_the_steps_saves_a_quarter():
    sampling = 40 * 25 * count_pasd_flop(4096)
    saved = plan().flop - plan(guidance_interval=(0.25, 0.75)).flop
    assert saved == pytest.approx(sampling / 4)


def test_qualities_are_ordered_by_work():
    draft, standard, best = (plan(quality=name).flop for name in ("draft", "standard", "best"))
    assert draft * 4 < standard < best
    assert best == pytest.approx(2 * standard, rel=0.1)


def test_a_picture_to_colour_is_planned_in_the_size_it_is_shown():
    assert plan((4000, 3000), task=COLORIZE, choice=ModelChoice(engine="pasd", variant="light-color")).tiles == 2


def test_a_budget_is_kept_or_refused():
    scant = Device(torch.device("cpu"), torch.float32, 8 << 30)
    assert plan(device=scant).memory <= 8 << 30
    with pytest.raises(MachineError, match="`max_memory`"):
        plan(device=Device(torch.device("cpu"), torch.float32, 2 << 30))


def test_on_a_cpu_the_vae_takes_more_of_a_large_result_than_sampling_does():
    small, large = (plan((side, side)).memory for side in (256, 1024))
    assert large - small == pytest.approx((4 * VALUES_PER_PIXEL + LATENT_CANVAS_BYTES) * (4096**2 - 1024**2), rel=0.2)


def test_another_pass_of_the_builtin_engine_is_counted():
    builtin = ModelChoice(engine="builtin")
    once, twice = (plan((128, 128), builtin, scale=scale).flop for scale in (4, 8))
    assert twice > 10 * once


def test_the_builtin_engines_memory_stays_flat_where_its_blocks_do():
    """Beside the block there are three bytes a pixel of picture and result, and a large result is in a file."""
    builtin = ModelChoice(engine="builtin")
    once, more, huge = (plan((side, side), builtin).memory for side in (512, 1024, 7500))
    assert once < more < huge < 2 * once
    scant = plan((2048, 2048), builtin, Device(torch.device("cpu"), torch.float32, 1 << 30))
    assert scant.memory <= 1 << 30
    assert scant.tiles > plan((2048, 2048), builtin).tiles
    assert plan((4000, 3000), builtin, Device(torch.device("cpu"), torch.float32, 700 << 20)).memory <= 700 << 20


def test_on_a_gpu_the_builtin_engines_levels_lie_in_host_memory():
    meta = Device(torch.device("meta"), torch.float32)
    small, large = (plan((side, side), ModelChoice(engine="builtin"), meta) for side in (2048, 4096))
    assert large.memory == small.memory
    assert large.host == 4 * small.host == 3 * 17 * 4096**2


@pytest.mark.parametrize("kind", ["sr3", "ddpm"])
def test_sr3_is_planned_as_its_checkpoint_says(kind):
    tiny = ModelChoice(engine="sr3", adapter=str(HERE / f"sr3/tiny/{kind}_tiny.safetensors"))
    once, twice = (plan((40, 32), tiny, scale=scale, steps=3) for scale in (8, 16))
    assert (once.result, once.steps, once.tiles, once.tile) == ((320, 256), 3, 1, (320, 256))
    assert twice.flop > 4 * once.flop > 0
    assert twice.memory > once.memory


def test_without_a_checkpoint_nothing_can_be_said_of_sr3():
    with pytest.raises(WeightsError, match="`adapter` FILE"):
        plan(choice=ModelChoice(engine="sr3"))


def test_the_command_prints_plans_and_writes_nothing(tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    done = CliRunner().invoke(app, ["upscale", str(tmp_path), "--engine", "builtin", "--explain", "--json"])
    assert done.exit_code == 3
    said = json.loads(done.stdout)
    assert (said["event"], said["result"], said["engine"], said["steps"]) == ("plan", "256x192", "builtin", 1)
    assert said["found"].keys() == {"blur", "noise", "colour noise", "JPEG"}
    assert "b.png" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_the_plan_names_the_damage_that_was_found_or_told(tmp_path):
    noise = np.random.default_rng(0).normal(0, 10, (64, 64))
    Image.fromarray((128 + noise).astype(np.uint8)).save(tmp_path / "noisy.png")
    words = ["upscale", str(tmp_path / "noisy.png"), "--engine", "builtin", "--explain"]
    found = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(found.stdout)["found"]["noise"] > 0.3
    told = CliRunner().invoke(app, [*words, "--damage", "none"])
    assert "heavy: blur 0.00, noise 0.00, colour noise 0.00, JPEG 0.00" in told.stdout


def test_the_command_plans_what_a_run_would_do(tmp_path):
    """Not what folders hold besides: earlier results, and masks."""
    runner, words = CliRunner(), ["upscale", str(tmp_path), "-r", "--engine", "builtin", "--explain"]
    (tmp_path / "masks").mkdir()
    assert runner.invoke(app, words).exit_code == 2
    for name in ("a", "masks/a"):
        Image.new("RGB", (64, 48), "red").save(tmp_path / f"{name}.png")
    assert runner.invoke(app, ["upscale", str(tmp_path / "a.png"), "--engine", "builtin"]).exit_code == 0
    done = runner.invoke(app, [*words, "--mask", str(tmp_path / "masks")])
    assert (done.exit_code, done.stdout.count(" by builtin")) == (0, 1)


ONE = ("--engine", "pasd", "--steps", "1", "--process-size", "512")


@pytest.mark.parametrize(
    ("options", "line"), [(("--engine", "builtin"), "  1 tile; 1 step; "), (ONE, "  1 tile of 64x64; 1 step; ")]
)
def test_one_is_one(tmp_path, options, line):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    words = ["upscale", str(tmp_path / "a.png"), "--device", "cpu", "--explain", *options]
    assert CliRunner().invoke(app, words).stdout.splitlines()[2].startswith(line)


def test_without_a_gpu_it_is_said_how_long_pasd_would_take(monkeypatch, said):
    monkeypatch.setattr(Store, "has", lambda self, name: name != "gdpo")
    cpu = DeviceChoice(device="cpu", dtype="float32", threads=1)
    assert choose_engine(UPSCALE, ModelChoice(), cpu).engine == "builtin"
    assert re.search(r"takes about [\d.]+ (s|min|h) for a result of 2048x2048 here: `engine` pasd$", said[0])
