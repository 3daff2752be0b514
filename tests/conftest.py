"""What every test gets: one thread, a fixed seed, no network, a home of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from hypothesis import settings
from typer import testing

from srcli import messages
from srcli.messages import forward_messages

settings.register_profile("srcli", deadline=None, max_examples=40, print_blob=True)
settings.load_profile("srcli")

# A process of the program builds its commands once. To build them for each run takes longer than many a run.
testing._get_command = cache(testing._get_command)


# What a developer may have set, and what would lead a test to their cache, their mirror or their account.
OTHERS = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No test reads or writes the user's own settings and caches."""
    path = tmp_path_factory.mktemp("home")
    for name, folder in (("XDG_CONFIG_HOME", "config"), ("XDG_CACHE_HOME", "cache"), ("HF_HOME", "hub")):
        monkeypatch.setenv(name, str(path / folder))
    for name in OTHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.setattr(messages, "owns_stderr", False)  # a test that runs the command line in this process sets it
    yield path


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the package says to its user while a test runs."""
    heard: list[str] = []
    forward_messages(heard.append)
    yield heard
    forward_messages(None)
