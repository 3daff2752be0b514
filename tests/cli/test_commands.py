"""The four commands, run as a user runs them, on tiny but real models."""

from __future__ import annotations

import io
import json
import logging

import numpy as np
import pytest
from PIL import Image
from tests.cli.conftest import COLOR, PASD, QUICK, TINY
from tests.taesd_folder import write_taesd

from srcli import errors
from srcli.api import Pipeline
from srcli.cli import main
from srcli.engines import choose as choosing

FOUR = {
    "upscale": (*PASD, "--scale", 1.5),
    "stylize": (*PASD, "--strength", 0.8),
    "restore-old-photo": PASD,
    "colorize": COLOR,
}
NAMES = {
    "upscale": "photo_x1.5.png",
    "stylize": "photo_stylized.png",
    "restore-old-photo": "photo_restored.png",
    "colorize": "photo_colorized.png",
}


@pytest.mark.parametrize("tiling", [(), ("--tile", 6, "--overlap", 2)], ids=["whole", "tiled"])
@pytest.mark.parametrize("command", FOUR)
def test_each_command_runs_from_file_to_file(command, tiling, srcli, photo):
    result = srcli(command, photo, *FOUR[command], *QUICK, *tiling, "--seed", 1)
    assert result.exit_code == 0, result.stderr
    target = photo.with_name(NAMES[command])
    assert result.stdout == f"{target}\n"
    with Image.open(target) as made:
        assert made.size == ((84, 60) if command == "upscale" else (56, 40))
        assert np.ptp(np.asarray(made)) > 0
        assert "pasd" in json.dumps(made.info.get("xmp", b"").decode())


def test_the_same_seed_makes_the_same_picture_and_another_seed_another(srcli, photo, tmp_path):
    def run(name: str, seed: int) -> bytes:
        out = tmp_path / name
        assert srcli("upscale", photo, *FOUR["upscale"], *QUICK, "--seed", seed, "-o", out).exit_code == 0
        return np.asarray(Image.open(out)).tobytes()

    first = run("a.png", 1)
    assert run("b.png", 1) == first
    assert run("c.png", 2) != first


def test_a_preview_shows_the_picture_while_it_is_made_and_changes_nothing(srcli, photo, tmp_path):
    write_taesd(tmp_path / "taesd")
    look, words = tmp_path / "look.jpg", (*FOUR["upscale"], *QUICK, "-o", tmp_path / "out.png")
    assert srcli("upscale", photo, *words).exit_code == 0
    plain = np.asarray(Image.open(tmp_path / "out.png")).tobytes()
    for more in (("--overwrite",), ()):  # the second run finds what the first left
        result = srcli("upscale", photo, *words, "--preview", look, *more)
        assert result.exit_code == 0
        assert ("0 done, 1 skipped" in result.stderr) == (not more)
    assert np.asarray(Image.open(tmp_path / "out.png")).tobytes() == plain
    with Image.open(look) as seen:
        assert seen.size == (88, 64)


def test_a_preview_without_its_model_ends_the_run_before_it_begins(srcli, photo):
    result = srcli("upscale", photo, *FOUR["upscale"], *QUICK, "--preview", photo.with_name("look.png"))
    assert result.exit_code == 4
    assert "srcli models pull taesd" in result.stderr
    assert [path.name for path in photo.parent.iterdir()] == ["photo.png"]


def test_a_picture_may_come_and_go_by_pipe(srcli, photo):
    result = srcli("restore-old-photo", "-", "-o", "-", *PASD, *QUICK, stdin=photo.read_bytes())
    assert result.exit_code == 0, result.stderr
    assert Image.open(io.BytesIO(result.stdout_bytes)).size == (56, 40)


def test_json_is_one_object_a_line_and_nothing_else(srcli, photo):
    result = srcli("restore-old-photo", photo, "--json", *PASD, *QUICK)
    planned, *progress, done, finished = (json.loads(line) for line in result.stdout.splitlines())
    assert planned == {"event": "planned", "total": 1}
    assert {said["event"] for said in progress} == {"progress"}
    assert [said["percent"] for said in progress] == sorted(said["percent"] for said in progress)
    assert done["event"] == "done"
    assert done["output"].endswith("photo_restored.png")
    assert (finished["event"], finished["done"], finished["exit"]) == ("finished", 1, 0)


def test_what_was_not_a_picture_fails_alone(srcli, photo, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(photo.read_bytes()[:200])
    result = srcli("restore-old-photo", bad, photo, "-o", tmp_path / "out", *PASD, *QUICK)
    assert result.exit_code == 3
    assert (tmp_path / "out" / "photo_restored.png").exists()
    assert len([line for line in result.stderr.splitlines() if line.startswith("srcli: ")]) == 1


WRONG = [
    (2, "exclude each other", ["--scale", 2, "--width", 100]),
    (2, "--guidance", ["--guidance", -1, *PASD]),
    (2, "--conditioning-scale", ["--conditioning-scale", 9, *PASD]),
    (2, "--overlap", ["--tile", 16, "--overlap", 16, *PASD]),
    (2, "--scheduler", ["--scheduler", "magic", *PASD]),
    (2, "--guidance-interval", ["--guidance-interval", "0.9,0.1", *PASD]),
    (2, "means nothing to the builtin engine", ["--engine", "builtin", "--guidance", 3]),
    (2, "--base-model means nothing", ["--engine", "builtin", "--base-model", "anime"]),
    (2, "--prompt means nothing", ["--engine", "builtin", "--prompt", "a cat"]),
    (2, "--preview means nothing", ["--engine", "builtin", "--preview", "look.png"]),
    (2, "--compile means nothing", ["--engine", "builtin", "--compile"]),
    (2, "--compile only loses time", ["--device", "cpu", *PASD, "--compile"]),
    (2, "--lora means nothing", ["--engine", "sr3", "--adapter", "x.pth", "--lora", "y.safetensors"]),
    (2, "--caption means nothing", ["--engine", "stablesr", "--caption", "detect"]),
    (2, "--lora nan", ["--lora", "x.safetensors:nan", *PASD]),
    (2, "--overlap goes with --tile", ["--overlap", 4, *PASD]),
    (2, "--seed", ["--seed", 2**63, *PASD]),
    (2, "float16", ["--dtype", "float16", *PASD]),
    (2, "no such option", ["--skale", 2]),
    (2, "--map needs a value, and --map-seeds is an option", ["--map", "--map-seeds", 3]),
    (2, "-o needs a value, and --scale is an option", ["-o", "--scale", 2]),
    (2, "invalid value for '--scale'", ["--scale", "big"]),
    (2, "'SRCLI_QUALITY'): 'good' is not one of", ["--quality", "good"]),
    (2, "--fidelity 1.0000001 is out of range", ["--fidelity", 1.0000001]),
    (2, "prompt", ["--prompt", "a", "--prompt-file", "b"]),
    (4, "no-such-folder", ["--engine", "pasd", "--base-model", "./no-such-folder"]),
    (4, "", ["--engine", "pasd", "--base-model", TINY / "base", "--adapter", TINY / "base"]),
    (5, "no device 'cuda:7'", ["--device", "cuda:7", *PASD]),
]


@pytest.mark.parametrize(("code", "words", "options"), WRONG, ids=[w[1] or "adapter" for w in WRONG])
def test_a_mistake_is_one_line_and_the_right_exit_code(code, words, options, srcli, photo):
    before = sorted(photo.parent.iterdir())
    result = srcli("upscale", photo, *options)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("0%")]
    assert (result.exit_code, len(lines)) == (code, 1), result.stderr
    assert lines[0].startswith("srcli: ")
    assert words in lines[0]
    assert result.stdout == ""
    assert sorted(photo.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("code", "words", "command"),
    [
        (2, "needs a base model", ["stylize"]),
        (2, "cannot stylize", ["stylize", "--engine", "builtin", "--base-model", "anime"]),
        (4, "srcli models pull ddcolor-tiny", ["colorize", "--device", "cpu"]),
    ],
)
def test_what_cannot_be_done_here_says_what_would_help(code, words, command, srcli, photo):
    result = srcli(*command, photo, "--offline")
    assert result.exit_code == code
    assert words in result.stderr


def test_a_mistake_before_the_command_is_one_line_too(srcli):
    result = srcli("--bogus")
    assert (result.exit_code, result.stderr) == (2, "srcli: no such option: --bogus: see srcli --help\n")


def test_a_folder_may_be_named_like_the_argument(srcli, photo, monkeypatch):
    monkeypatch.chdir(photo.parent)
    (photo.parent / "inputs").mkdir()
    photo.rename(photo.parent / "inputs" / photo.name)
    result = srcli("upscale", "inputs", "--engine", "builtin", "--dry-run")
    assert result.exit_code == 0, result.stderr


def test_the_doctor_is_one_object_on_one_line(srcli):
    facts = json.loads(srcli("doctor", "--json").stdout.strip("\n"))
    assert facts["devices"]["chosen"]
    assert facts["formats"]["TIFF"] == ".tif .tiff: read, written with 16 bits a channel"
    assert facts["formats"]["HEIF"] == ".heic .heif .hif: read with srcli[heif]"
    assert "give --base-model" in facts["runs by default"]["stylize"]


def test_the_doctor_tells_the_machine_and_runs_a_model(srcli):
    result = srcli("doctor", "--run", "--json")
    facts = json.loads(result.stdout)
    assert result.exit_code == 0
    assert " cores" in facts["devices"]["cpu"]
    assert facts["memory"]["total"].endswith("GiB")
    assert [line for line in facts["can be written"].values() if not line.endswith(": yes")] == []
    assert "48x32 to 96x64" in facts["run"]["builtin"]


def test_the_doctor_s_run_ends_with_the_error_s_code(srcli, monkeypatch):
    def refuse(**options: object) -> None:
        raise errors.MachineError("no room: free some")

    monkeypatch.setattr(Pipeline, "load", refuse)
    result = srcli("doctor", "--run", "--json")
    assert (result.exit_code, json.loads(result.stdout)["run"]) == (5, {"trouble": "no room: free some"})


def test_the_doctor_outlives_a_broken_lock(srcli, tmp_path, monkeypatch):
    broken = tmp_path / "srcli" / "weights.lock"
    broken.parent.mkdir()
    broken.write_text("[[[")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    result = srcli("doctor", "--json")
    assert result.exit_code == 0
    assert "weights.lock" in json.loads(result.stdout)["weights"]["trouble"]


def test_nothing_named_and_nothing_found_are_mistakes(srcli, tmp_path):
    assert srcli("upscale").exit_code == 2
    result = srcli("upscale", tmp_path)
    assert result.exit_code == 2
    assert "no picture found" in result.stderr


def test_a_print_has_its_size_and_its_density(srcli, photo, tmp_path):
    out = tmp_path / "print.jpg"
    assert srcli("upscale", photo, "--engine", "builtin", "--to", "10x20mm@300dpi", "-o", out).exit_code == 0
    with Image.open(out) as made:
        assert made.size == (165, 118)
        assert made.info["dpi"] == (300, 300)


def test_a_hint_waits_until_there_is_work(srcli, photo, monkeypatch):
    def hint(*given, **more):
        logging.getLogger("srcli").info("using what is here")
        return choose(*given, **more)

    choose = choosing.settle_choice
    monkeypatch.setattr(choosing, "settle_choice", hint)
    assert srcli("upscale", photo.with_name("none.png")).stderr.count("\n") == 1
    assert "using what is here\n" in srcli("upscale", photo, "--engine", "builtin").stderr


def test_an_output_that_exists_is_not_touched_unasked(srcli, photo):
    target = photo.with_name("photo_restored.png")
    target.write_bytes(b"mine")
    assert srcli("restore-old-photo", photo, *PASD, *QUICK).exit_code != 0
    assert target.read_bytes() == b"mine"
    skipped = srcli("restore-old-photo", photo, *PASD, *QUICK, "--skip-existing")
    assert (skipped.exit_code, skipped.stderr[:17]) == (0, "0 done, 1 skipped")
    assert target.read_bytes() == b"mine"
    assert srcli("restore-old-photo", photo, *PASD, *QUICK, "--overwrite").exit_code == 0
    assert target.read_bytes() != b"mine"


def test_an_interrupt_before_the_commands_are_built_is_one_line(monkeypatch, capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("srcli.cli.app", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "srcli: interrupted\n")
