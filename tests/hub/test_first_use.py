"""Weights that a run itself has to fetch: said, asked about, and nothing fetched in vain."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from srcli.cli import app, downloads
from srcli.engines.required import check_local_files, find_missing_weights
from srcli.errors import WeightsError
from srcli.settings import LoraChoice, ModelChoice
from srcli.weights.store import Store
from tests.batch.fakes import draw
from tests.cli.conftest import QUICK, TINY
from tests.hub.server import Fault, Hub

NAMES = {"base": "tiny-base", "pasd": "tiny-pasd"}
WORDS = ("--engine", "pasd", "--base-model", "tiny-base", "--adapter", "tiny-pasd", "--caption", "none", *QUICK)
ASKING = "import srcli.cli.downloads as d; d.ASK_ABOVE = 0; from srcli.cli import main; main()"


@pytest.fixture
def photo(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A picture, and a Hub with a tiny PASD that is known by name and not here."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    for folder, name in NAMES.items():
        shutil.copytree(TINY / folder, hub.folder / "tiny" / folder)
        run("models", "add", name, f"tiny/{folder}", "--kind", "base" if folder == "base" else "adapter")
    return draw(tmp_path / "photo.png")


def run(*words: object, answer: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], input=answer)


def is_here(name: str) -> bool:
    return Store(offline=True).has(name)


def test_a_run_says_what_it_fetches_asks_and_makes_the_picture(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "ASK_ABOVE", 0)
    monkeypatch.setattr(downloads, "is_on_terminal", lambda: True)
    refused = run("upscale", photo, *WORDS, answer="n\n")
    assert refused.exit_code == 4 and "give --yes" in refused.stderr
    made = run("upscale", photo, *WORDS, "--yes")
    assert made.exit_code == 0, made.output
    assert [name for name in NAMES.values() if f"{name}: " in made.stderr] == list(NAMES.values())
    assert " MB in all\n" in made.stderr and "Fetch " not in made.stderr
    assert all(is_here(name) for name in NAMES.values())


def test_nothing_is_fetched_for_a_run_that_cannot_begin_or_has_nothing_to_do(photo: Path, hub: Hub) -> None:
    before = len(hub.asked)
    assert run("upscale", photo.with_name("missing.png"), *WORDS).exit_code == 2
    shutil.copy(photo, photo.with_name("photo_x4.png"))
    assert run("upscale", photo, *WORDS, "--skip-existing").exit_code == 0
    assert len(hub.asked) == before


def test_the_users_own_files_are_looked_at_before_anything_is_fetched(photo: Path, hub: Hub) -> None:
    before, text, words = len(hub.asked), photo.with_suffix(".safetensors"), ("upscale", photo, *WORDS)
    text.write_text("no weights")
    vae = TINY / "base" / "vae" / "diffusion_pytorch_model.safetensors"
    for option, file, said in (
        ("--base-model", text, "not a whole"),
        ("--lora", text, "not a whole"),
        ("--lora", vae, "vae"),
    ):
        done = run(*words, option, file)
        assert done.exit_code == 4 and str(file) in done.stderr and said in done.stderr, done.stderr
    assert len(hub.asked) == before


def test_what_was_learned_is_told_although_a_later_entry_fails(photo: Path, hub: Hub) -> None:
    hub.faults.append(Fault("wrong", "*controlnet*"))
    failed = run("upscale", photo, *WORDS)
    assert failed.exit_code == 4 and "tiny-base: 9 hashes learned" in failed.stderr, failed.stderr


def test_without_a_network_the_user_s_own_word_comes_first(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run("upscale", photo, *WORDS, "--offline")
    assert said.exit_code == 4 and said.stderr.startswith("srcli: tiny-base needs "), said.stderr
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    gone = run("upscale", photo, *WORDS)
    assert gone.exit_code == 4 and gone.stderr.startswith("srcli: tiny-base needs "), gone.stderr
    assert "from the Hub" in gone.stderr and "or give a file" in gone.stderr


def test_on_a_terminal_much_is_asked_about_before_anything_is_fetched(photo: Path) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-c", ASKING, "upscale", str(photo), *map(str, WORDS)]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as program:
        os.close(slave)
        told = ""
        while "[y/N]" not in told:
            told += os.read(master, 4096).decode()
        assert " in all\r\n" in told and "Fetch " in told and "━" not in told.rpartition("in all")[2]
        os.write(master, b"n\n")
    assert program.returncode == 4 and not any(is_here(name) for name in NAMES.values())
    os.close(master)


def missing(**choice: object) -> dict[str, tuple[str, ...]]:
    given = ModelChoice(engine="pasd", **choice)  # type: ignore[arg-type]
    return {entry.name: parts for entry, parts in find_missing_weights(given, Store(offline=True))}


def test_a_chosen_base_takes_the_place_of_the_one_that_the_adapter_needs(tmp_path: Path) -> None:
    outer = ("scheduler", "text_encoder", "tokenizer", "vae")
    assert missing() == {"pasd": (), "sd15": outer}
    assert list(missing(base="disney")) == ["disney", "pasd"]
    assert missing(base="sd15") == {"sd15": outer, "pasd": ()}
    own = tmp_path / "own.safetensors"
    own.touch()
    assert missing(base=str(own)) == {"pasd": ()}
    assert missing(base=str(own), adapter=str(tmp_path)) == {}
    assert missing(base=str(own), loras=(LoraChoice(source="lcm-lora"),)) == {"pasd": (), "lcm-lora": ()}


def test_a_pickled_base_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    own = tmp_path / "own.ckpt"
    own.write_bytes(b"a pickle")
    with pytest.raises(WeightsError, match="which can run code"):
        check_local_files(ModelChoice(engine="pasd", base=str(own)), Store(offline=True))
    check_local_files(ModelChoice(engine="pasd", base=str(own), allow_pickle=True), Store(offline=True))


def test_files_of_the_same_path_in_two_entries_are_told_apart() -> None:
    seen: list[str] = []
    for name in NAMES:
        downloads.prefix_report(name, lambda path, here, size: seen.append(path))("unet/config.json", 1, 2)
    assert seen == ["base/unet/config.json", "pasd/unet/config.json"]


def test_without_a_terminal_a_line_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(downloads, "LINE_INTERVAL", 0.0)
    monkeypatch.setattr(downloads, "print_message", told.append)
    with downloads.show_download_progress(3_000_000) as report:
        report("a", 500_000, 2_000_000)  # which lay here before
        report("a", 1_500_000, 2_000_000)
    assert told[-1].startswith("fetched 1.0 MB of 3.0 MB, ") and told[-1].endswith("left")
