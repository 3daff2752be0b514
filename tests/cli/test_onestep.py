"""One-step models from the command line: every variant, tiled and whole; what is refused, and with which exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.conftest import Srcli
from tests.golden.cases import HERE
from tests.hub.server import Hub, git_blob
from tests.taesd_folder import write_taesd

from srcli.engines.onestep import weights
from srcli.weights.lock import Entry, File
from srcli.weights.overlay import write_entry
from srcli.weights.places import find_places

TINY = HERE / "onestep" / "tiny"
RUN = ("--engine", "onestep", "--base-model", TINY / "base", "--caption", "none")
QUICK = ("--process-size", 64, "--dtype", "float32", "--threads", 1)
ADAPTERS = {
    "pisa": TINY / "pisa_sr.safetensors",
    "osediff": TINY / "osediff.safetensors",
    "osediff-face": TINY / "osediff.safetensors",
    "gdpo": TINY / "gdpo",
}


@pytest.fixture
def scan(tmp_path: Path, photo: Path) -> Path:
    """Of a size that the official programs squeeze."""
    path = tmp_path / "scan.png"
    with Image.open(photo) as large:
        large.resize((27, 21)).save(path)
    return path


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as found:
        return found.size


@pytest.mark.parametrize("tile", [(), ("--tile", 10)], ids=["whole", "tiled"])
@pytest.mark.parametrize("variant", ADAPTERS)
def test_every_variant_enlarges(srcli: Srcli, scan: Path, tmp_path: Path, variant: str, tile: tuple) -> None:
    out = tmp_path / "out.png"
    done = srcli("upscale", scan, "-o", out, *RUN, *QUICK, "--variant", variant, "--adapter", ADAPTERS[variant], *tile)
    assert done.exit_code == 0, done.output
    assert size(out) == (108, 84)
    assert b"onestep" in out.read_bytes()


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("pisa", ("--steps", 4)),
        ("pisa", ("--guidance", 3)),
        ("pisa", ("--noise-level", 200)),
        ("pisa", ("--negative-prompt", "people")),
        ("osediff", ("--fidelity", 0.3)),
        ("gdpo", ("--fidelity", 0.3)),
        ("rrdb", ()),
    ],
)
def test_what_means_nothing_is_refused_before_loading(
    srcli: Srcli, photo: Path, monkeypatch: pytest.MonkeyPatch, variant: str, options: tuple
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something was loaded")

    monkeypatch.setattr(weights, "open_onestep", refuse)
    done = srcli(
        "upscale", photo, *RUN, "--adapter", ADAPTERS.get(variant, TINY / "gdpo"), "--variant", variant, *options
    )
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("srcli: --") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("variant", "adapter", "said"),
    [
        ("pisa", TINY / "osediff.safetensors", "this is osediff, and --variant pisa needs another adapter"),
        ("osediff", TINY / "osediff.pkl", "add --allow-pickle"),
        ("osediff", HERE / "pasd" / "tiny" / "base" / "vae", "choose"),
    ],
)
def test_weights_that_do_not_fit_end_the_run(srcli: Srcli, photo: Path, variant: str, adapter: Path, said: str) -> None:
    done = srcli("upscale", photo, *RUN, *QUICK, "--variant", variant, "--adapter", adapter)
    assert done.exit_code == 4
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_a_plan_a_draft_and_a_preview(srcli: Srcli, scan: Path, tmp_path: Path) -> None:
    told = (*RUN, *QUICK, "--adapter", ADAPTERS["pisa"])
    plan = srcli("upscale", scan, *told, "--explain", "--json")
    assert plan.exit_code == 0, plan.output
    assert json.loads(plan.stdout.splitlines()[-1])["steps"] == 1
    write_taesd(tmp_path / "taesd")
    look, out = tmp_path / "look.png", tmp_path / "out.png"
    done = srcli("upscale", scan, "-o", out, *told, "--quality", "draft", "--preview", look)
    assert done.exit_code == 0, done.output
    assert size(out) == (108, 84)
    assert look.exists()


def lend_base() -> None:
    """Let the tiny base be the usual one."""
    base = TINY / "base"
    files = {
        p.relative_to(base).as_posix(): File(p.relative_to(base).as_posix()) for p in base.rglob("*") if p.is_file()
    }
    write_entry(
        find_places().overlay,
        Entry(name="sd21-base", kind="base", family="sd21", license="-", files=files, local=str(base)),
    )


def test_a_file_of_ones_own_is_added_and_converted_once(srcli: Srcli, scan: Path, tmp_path: Path) -> None:
    lend_base()
    assert srcli("models", "add", "pisa-sr", TINY / "pisa_sr.pkl").exit_code == 0
    told = ("upscale", scan, "-o", tmp_path / "out.png", "--overwrite", "--engine", "onestep", *QUICK)
    assert srcli(*told).exit_code == 4
    done = srcli(*told, "--allow-pickle")
    assert done.exit_code == 0, done.output
    assert srcli(*told).exit_code == 0


@pytest.mark.usefixtures("lifted")
def test_osediff_is_pulled_from_its_address_and_runs_without_a_network(
    srcli: Srcli, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lend_base()
    repo, path = "author/OSEDiff", "preset/models/osediff.pkl"
    (tmp_path / "hub" / repo / path).parent.mkdir(parents=True)
    shutil.copyfile(TINY / "osediff.pkl", tmp_path / "hub" / repo / path)
    content = (TINY / "osediff.pkl").read_bytes()
    with Hub(tmp_path / "hub") as hub:
        known = {"kind": "adapter", "family": "sd21", "license": "apache-2.0", "needs": ("sd21-base",)}
        files = {path: File(path, blob=git_blob(content))}
        address = f"{hub.url}/raw/{repo}"
        write_entry(
            find_places().overlay, Entry(name="osediff", address=address, revision=hub.head(repo), files=files, **known)
        )
        pulled = srcli("models", "pull", "osediff")
        assert pulled.exit_code == 0, pulled.output
        assert "1 hashes learned" in pulled.stderr
    out = tmp_path / "out.png"
    done = srcli("upscale", scan, "-o", out, "--engine", "onestep", "--caption", "none", *QUICK, "--allow-pickle")
    assert done.exit_code == 0, done.output
    assert size(out) == (108, 84)


@pytest.fixture
def lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the suite's ban on the network; the server is this machine's own."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


# Sides in pixels: as 160x136 and 504x504 with the official programs; the last two crash PiSA-SR's tiles.
@pytest.mark.parametrize("sides", [(41, 35), (49, 49), (49, 27), (30, 8)])
def test_sizes_that_others_squeeze_or_crash_on(srcli: Srcli, photo: Path, tmp_path: Path, sides: tuple) -> None:
    source, out = tmp_path / "small.png", tmp_path / "out.png"
    with Image.open(photo) as large:
        large.resize(sides).save(source)
    tiles = ("--tile", 20, "--overlap", 8)
    done = srcli("upscale", source, "-o", out, *RUN, *QUICK, "--adapter", ADAPTERS["pisa"], *tiles)
    assert done.exit_code == 0, done.output
    assert size(out) == (4 * sides[0], 4 * sides[1])


def test_memory_and_compiling(srcli: Srcli, scan: Path, tmp_path: Path) -> None:
    told = ("upscale", scan, *RUN, *QUICK, "--adapter", ADAPTERS["pisa"])
    for name, options in (("plain", ()), ("frugal", ("--max-memory", "2GB"))):
        done = srcli(*told, "-o", tmp_path / f"{name}.png", *options)
        assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "plain.png") as plain, Image.open(tmp_path / "frugal.png") as frugal:
        assert plain.tobytes() == frugal.tobytes()
    for options, code, said in (
        (("--max-memory", "1MB"), 5, "max-memory"),
        (("--device", "cpu", "--compile"), 2, "--compile only loses time"),
    ):
        done = srcli(*told, "-o", tmp_path / "none.png", *options)
        assert (done.exit_code, done.stderr.count("\n")) == (code, 1), done.output
        assert said in done.stderr and not (tmp_path / "none.png").exists()
