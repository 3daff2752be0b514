"""Engines are found by name, whoever brings them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.golden.cases import HERE
from tests.stablesr_folder import write_adapter
from typer.testing import CliRunner

from srcli.cli import app
from srcli.engines.choose import choose_engine, recognize_adapter
from srcli.engines.forecast import forecast_run
from srcli.engines.registry import all_engines, engines_for, find_engine
from srcli.engines.runtime.device import choose_device
from srcli.errors import InputError
from srcli.settings import ENGINE_OPTIONS, DeviceChoice, ModelChoice, Sampling
from srcli.tasks import COLORIZE, RESTORE, TASKS, UPSCALE, Job
from srcli.weights import care
from srcli.weights.store import Store

TOY = Path(__file__).parents[2] / "toy" / "mirror_engine.py"
CPU = DeviceChoice(device="cpu", dtype="float32", threads=1)
SPECS = list(all_engines().values())


@pytest.fixture
def srcli(tmp_path: Path):
    """The command line beside an installed package that brings an engine."""
    site, info = tmp_path / "site", tmp_path / "site" / "mirror-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mirror\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[srcli.engines]\nmirror = mirror_engine:SPEC\n")
    (site / TOY.name).write_bytes(TOY.read_bytes())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *sys.path])}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "srcli", *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_an_engine_of_another_package_runs_like_srclis_own(srcli, tmp_path):
    assert len(TOY.read_text(encoding="utf-8").splitlines()) < 60
    source, out = tmp_path / "a.png", tmp_path / "b.png"
    pixels = np.random.default_rng(1).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(pixels).save(source)
    done = srcli("upscale", source, "--engine", "mirror", "--scale", 1, "-o", out)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.asarray(Image.open(out)), pixels[:, ::-1])
    plan = json.loads(srcli("upscale", source, "--engine", "mirror", "--explain", "--json").stdout)
    assert (plan["engine"], plan["steps"], plan["result"]) == ("mirror", 1, "48x32")
    assert "mirror" in srcli("upscale", "--help").stdout
    refused = srcli("colorize", source, "--engine", "mirror")
    assert (refused.returncode, refused.stderr) == (
        2,
        "srcli: the mirror engine cannot colorize: choose one of pasd, ddcolor, manual\n",
    )
    idle = srcli("upscale", source, "--engine", "mirror", "--noise-level", 3)
    assert (idle.returncode, "--noise-level means nothing to the mirror engine" in idle.stderr) == (2, True)


def test_engines_load_no_heavy_library_before_they_are_loaded():
    code = "import sys, srcli.engines.registry as r; r.all_engines(); print(*{'torch', 'diffusers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_auto_tries_engines_by_rank_and_never_those_without_one():
    assert [spec.name for spec in engines_for(UPSCALE)][-2:] == ["stablesr", "sr3"]
    for task in TASKS.values():
        ranks = [rank for spec in engines_for(task) if (rank := spec.tasks[task.name].rank) is not None]
        assert ranks == sorted(set(ranks)) != [], task.name


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_spec_names_what_there_is(spec):
    assert spec.tasks.keys() <= TASKS.keys()
    assert spec.options <= ENGINE_OPTIONS.keys()
    assert spec.unset <= set(Sampling.__dataclass_fields__)
    assert all(spec.profile_of(name) is profile for name, profile in spec.variants.items())


def test_an_unknown_engine_is_refused_with_those_there_are():
    names = "auto, builtin, pasd, onestep, ddcolor, manual, stablesr, sr3"
    with pytest.raises(InputError, match=f"`engine` 'pads' is unknown: choose one of {names}"):
        find_engine("pads")


def test_weights_that_a_task_needs_are_in_the_spec():
    assert find_engine("pasd").tasks[COLORIZE.name].variant == "light-color"
    assert find_engine("pasd").tasks[RESTORE.name].base == "realistic"


def added(name: str, path: Path) -> str:
    """The user's own adapter under a name."""
    care.add_entry(Store(offline=True), name, str(path), "adapter")
    return name


def test_an_adapter_is_recognised_by_what_is_in_it(tmp_path):
    assert recognize_adapter(str(HERE / "sr3/tiny/sr3_tiny.safetensors")).name == "sr3"
    assert recognize_adapter(str(HERE / "pasd/tiny/pasd")).name == "pasd"
    folder = write_adapter(tmp_path / "mysr")
    assert recognize_adapter(str(folder)).name == "stablesr"
    assert recognize_adapter(added("mysr", folder)).name == "stablesr"
    assert recognize_adapter(added("stablesr-like", HERE / "pasd/tiny/pasd")).name == "pasd"


@pytest.mark.parametrize(
    ("name", "engine"),
    [("pasd-light-color", "pasd"), ("stablesr-turbo", "stablesr"), ("stablesr-768v-ckpt", "stablesr")],
)
def test_an_adapter_that_is_not_here_is_known_by_its_entry(name, engine):
    assert recognize_adapter(name).name == engine


@pytest.mark.parametrize(
    ("adapter", "variant", "steps"), [("stablesr-turbo", "turbo", 4), ("stablesr-768v-ckpt", "768v", 200)]
)
def test_the_variant_is_known_before_anything_asks_for_defaults(adapter, variant, steps):
    choice = choose_engine(UPSCALE, ModelChoice(adapter=adapter), CPU)
    assert (choice.engine, choice.variant) == ("stablesr", variant)
    assert forecast_run(choice, Job(task=UPSCALE), (64, 64), choose_device(CPU)).steps == steps


@pytest.mark.parametrize("options", [("stablesr", "--steps", "1"), ("pasd", "--steps", "60", "--scheduler", "lcm")])
def test_explain_refuses_what_sampling_would_refuse(tmp_path, options):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    done = CliRunner().invoke(app, ["upscale", str(tmp_path / "a.png"), "--explain", "--engine", *options])
    assert (done.exit_code, "--steps" in done.stderr) == (2, True)


@pytest.mark.parametrize("spec", [spec for spec in all_engines().values() if "variant" in spec.options])
def test_every_variant_that_completes_has_an_entry(spec) -> None:
    lock = Store(offline=True).lock()
    assert spec.variant_names
    for name in spec.variant_names:
        assert spec.entries(ModelChoice(engine=spec.name, variant=name))[0] in lock
