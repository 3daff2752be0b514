"""Folders of weights, caches and locks on this machine, from the environment at the time of the call."""

import os
from dataclasses import dataclass
from pathlib import Path

from srcli.errors import WeightsError
from srcli.files import expand_user

LOCK = "weights.lock"


@dataclass(frozen=True, slots=True)
class Places:
    """The Hub's cache, srcli's data folder, and the user's lock."""

    hub: Path
    data: Path  # converted weights, hashes of checked files, other caches
    overlay: Path


def find_places() -> Places:
    """Find the folders by the rules of huggingface_hub and XDG. WeightsError without a home folder and HF_HOME."""
    home = _home()
    cache = _given("XDG_CACHE_HOME") or (home and home / ".cache")
    hf = _given("HF_HOME") or (cache and cache / "huggingface")
    hub = _given("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") or (hf and hf / "hub")
    if hub is None:
        raise WeightsError("this user has no home folder: set HF_HOME to a folder for weights")
    config = _given("XDG_CONFIG_HOME") or (home and home / ".config") or hf or hub
    return Places(hub, (cache or hf or hub) / "srcli", config / "srcli" / LOCK)


def _given(*names: str) -> Path | None:
    name = next((name for name in names if os.environ.get(name)), None)
    if name is None:
        return None
    path = expand_user(os.path.expandvars(os.environ[name]))
    if path.parts and path.parts[0].startswith("~"):
        raise WeightsError(f"{name} is {os.environ[name]}, and there is no such user: set it to a folder")
    return path.absolute()


def _home() -> Path | None:
    # A container may run as a user without a home or a passwd entry; Path.home() raises there.
    if os.environ.get("HOME"):
        return Path(os.environ["HOME"])
    try:
        return Path.home()
    except RuntimeError:
        return None


def packaged_lock() -> Path:
    """The lock that is shipped with srcli: inside the package, or at the root of a checkout."""
    here = Path(__file__).resolve().parent.parent
    installed = here / "data" / LOCK
    return installed if installed.is_file() else here.parent.parent / LOCK
